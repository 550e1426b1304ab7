//! What a member's DNS knows, and what it answers: the records of Kubernetes' DNS specification 1.1, by pure functions.
//!
//! In: Services, EndpointSlices, namespaces, the member's CIDRs. Out: records, NODATA or NXDOMAIN with the SOA, REFUSED for names
//! of others. Never: a packet. Source: <https://github.com/kubernetes/dns/blob/master/docs/specification.md>.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
    },
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

use crate::network::Network;

/// Life of every record, and of a negative answer.
pub(super) const TTL_S: u32 = 5;
/// The version of the specification, as `dns-version.<domain>` says it.
const VERSION: &str = "1.1.0";

/// A port of a service or an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    host: String,
    ip: IpAddr,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    /// Empty for a headless service.
    ips: Vec<IpAddr>,
    alias: Option<String>,
    ports: Vec<Port>,
    endpoints: Vec<Endpoint>,
}

/// All that is known at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    domain: Name,
    network: Network,
    namespaces: BTreeSet<String>,
    services: BTreeMap<(String, String), Entry>,
    reverse: BTreeMap<IpAddr, Vec<String>>,
    serial: u32,
}

/// An answer's code and sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
}

impl Reply {
    fn empty(code: ResponseCode) -> Self {
        Self { code, answers: vec![], authorities: vec![], additionals: vec![] }
    }
}

impl Zone {
    /// Puts together what is known. `serial` tells this zone from those before.
    pub(crate) fn new<'a>(
        domain: &str,
        network: Network,
        namespaces: impl Iterator<Item = &'a str>,
        services: impl Iterator<Item = &'a Service>,
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
        serial: u32,
    ) -> Self {
        let domain = Name::from_ascii(format!("{domain}.")).unwrap_or_default();
        let namespaces = namespaces.map(str::to_owned).collect();
        let mut zone = Self { domain, network, namespaces, serial, ..Self::default() };
        for service in services {
            zone.add(service, slices.clone());
        }
        zone
    }

    fn add<'a>(&mut self, service: &Service, slices: impl Iterator<Item = &'a EndpointSlice>) {
        let (Some(name), Some(namespace), Some(spec)) =
            (&service.metadata.name, &service.metadata.namespace, &service.spec)
        else {
            return;
        };
        let named = format!("{name}.{namespace}.svc");
        let mut entry = Entry::default();
        if spec.type_.as_deref() == Some("ExternalName") {
            entry.alias = spec.external_name.clone();
        }
        let ips = spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        entry.ips = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        for port in spec.ports.iter().flatten() {
            let (name, protocol) = (port.name.clone().unwrap_or_default(), protocol(port.protocol.as_deref()));
            entry.ports.push(Port { name, protocol, number: u16::try_from(port.port).unwrap_or_default() });
        }
        let publish_all = spec.publish_not_ready_addresses == Some(true);
        let of_service = |s: &&EndpointSlice| {
            let label = s.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
            label == Some(name) && s.metadata.namespace.as_ref() == Some(namespace)
        };
        for slice in slices.filter(of_service) {
            let port = |p: &k8s_openapi::api::discovery::v1::EndpointPort| {
                let number = u16::try_from(p.port?).ok()?;
                let (name, protocol) = (p.name.clone().unwrap_or_default(), protocol(p.protocol.as_deref()));
                Some(Port { name, protocol, number })
            };
            let ports: Vec<_> = slice.ports.iter().flatten().filter_map(port).collect();
            for endpoint in &slice.endpoints {
                let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                if !ready && !publish_all {
                    continue;
                }
                for ip in endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()) {
                    let host = endpoint.hostname.clone().unwrap_or_else(|| dashed(ip));
                    self.reverse.entry(ip).or_default().push(format!("{host}.{named}"));
                    entry.endpoints.push(Endpoint { host, ip, ports: ports.clone() });
                }
            }
        }
        for ip in &entry.ips {
            self.reverse.entry(*ip).or_default().push(named.clone());
        }
        self.services.insert((namespace.clone(), name.clone()), entry);
    }

    /// Whether anything was looked at yet.
    pub(crate) fn is_known(&self) -> bool {
        self.serial > 0
    }

    /// Which version this is.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// What this zone says of `name`.
    pub(super) fn answer(&self, name: &Name, kind: RecordType) -> Reply {
        if !self.is_known() {
            return Reply::empty(ResponseCode::ServFail);
        }
        if let Ok(net) = name.parse_arpa_name() {
            return self.answer_reverse(name, kind, net.addr(), net.prefix_len() == net.max_prefix_len());
        }
        if !self.domain.zone_of(name) {
            return Reply::empty(ResponseCode::Refused);
        }
        let below = usize::from(name.num_labels() - self.domain.num_labels());
        let labels: Vec<String> =
            name.iter().take(below).map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let Some(all) = self.records(name, &labels) else { return self.nothing(ResponseCode::NXDomain) };
        let fits =
            |r: &Record| kind == RecordType::ANY || r.record_type() == kind || r.record_type() == RecordType::CNAME;
        let answers: Vec<_> = all.into_iter().filter(fits).collect();
        if answers.is_empty() {
            return self.nothing(ResponseCode::NoError);
        }
        let targets =
            answers.iter().filter_map(|r| if let RData::SRV(srv) = &r.data { Some(&srv.target) } else { None });
        let additionals = targets.flat_map(|t| self.addresses(t)).collect();
        Reply { code: ResponseCode::NoError, answers, authorities: vec![], additionals }
    }

    fn addresses(&self, target: &Name) -> Vec<Record> {
        let below = usize::from(target.num_labels().saturating_sub(self.domain.num_labels()));
        let labels: Vec<String> = target.iter().take(below).map(|l| String::from_utf8_lossy(l).into_owned()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let all = self.records(target, &labels).unwrap_or_default();
        all.into_iter().filter(|r| matches!(r.data, RData::A(_) | RData::AAAA(_))).collect()
    }

    /// Every record of `name`, whose labels below the domain are `labels`; `None` if there is no such name.
    fn records(&self, name: &Name, labels: &[&str]) -> Option<Vec<Record>> {
        match labels {
            [] => Some(vec![self.soa(), self.record(&self.domain, RData::NS(NS(self.name("ns.dns")?)))]),
            ["dns-version"] => Some(vec![self.record(name, RData::TXT(TXT::new(vec![VERSION.to_owned()])))]),
            ["svc" | "pod" | "dns"] => Some(vec![]),
            ["ns", "dns"] => Some(vec![]),
            [namespace, "svc" | "pod"] => self.namespaces.contains(*namespace).then(Vec::new),
            [dashed, namespace, "pod"] => {
                let known = self.namespaces.contains(*namespace);
                Some(vec![self.address(name, undashed(dashed).filter(|_| known)?)])
            }
            [service, namespace, "svc"] => self.service(name, self.entry(namespace, service)?),
            [proto, service, namespace, "svc"] if proto.starts_with('_') => {
                let entry = self.entry(namespace, service)?;
                entry.ports.iter().any(|p| p.protocol == proto[1..]).then(Vec::new)
            }
            [host, service, namespace, "svc"] => {
                let endpoints = self.entry(namespace, service)?.endpoints.iter().filter(|e| e.host == *host);
                let found: Vec<_> = endpoints.map(|e| self.address(name, e.ip)).collect();
                (!found.is_empty()).then_some(found)
            }
            [port, proto, service, namespace, "svc"] => {
                let (port, proto) = (port.strip_prefix('_')?, proto.strip_prefix('_')?);
                let entry = self.entry(namespace, service)?;
                let found = self.services_of(name, entry, port, proto, &format!("{service}.{namespace}.svc"));
                (!found.is_empty()).then_some(found)
            }
            _ => None,
        }
    }

    fn entry(&self, namespace: &str, service: &str) -> Option<&Entry> {
        self.services.get(&(namespace.to_owned(), service.to_owned()))
    }

    fn service(&self, name: &Name, entry: &Entry) -> Option<Vec<Record>> {
        if let Some(alias) = &entry.alias {
            let target = Name::from_ascii(format!("{}.", alias.trim_end_matches('.'))).ok()?;
            return Some(vec![self.record(name, RData::CNAME(CNAME(target)))]);
        }
        let own = entry.ips.iter().copied();
        let pods = entry.endpoints.iter().map(|e| e.ip).filter(|_| entry.ips.is_empty());
        Some(own.chain(pods).map(|ip| self.address(name, ip)).collect())
    }

    fn services_of(&self, name: &Name, entry: &Entry, port: &str, proto: &str, service: &str) -> Vec<Record> {
        let fits = |p: &&Port| p.name == port && p.protocol == proto;
        let srv = |number: u16, target: String| {
            Some(self.record(name, RData::SRV(SRV::new(0, 100, number, self.name(&target)?))))
        };
        if entry.ips.is_empty() {
            let of = |e: &Endpoint| {
                let port = e.ports.iter().find(fits)?;
                srv(port.number, format!("{}.{service}", e.host))
            };
            return entry.endpoints.iter().filter_map(of).collect();
        }
        entry.ports.iter().filter(fits).filter_map(|p| srv(p.number, service.to_owned())).collect()
    }

    fn answer_reverse(&self, name: &Name, kind: RecordType, ip: IpAddr, whole: bool) -> Reply {
        if !self.network.contains(ip) {
            return Reply::empty(ResponseCode::Refused);
        }
        match self.reverse.get(&ip).filter(|_| whole) {
            Some(names) if kind == RecordType::PTR => {
                let targets = names.iter().filter_map(|n| self.name(n));
                let answers = targets.map(|t| self.record(name, RData::PTR(PTR(t)))).collect();
                Reply { code: ResponseCode::NoError, answers, authorities: vec![], additionals: vec![] }
            }
            Some(_) => self.nothing(ResponseCode::NoError),
            None if !whole => self.nothing(ResponseCode::NoError),
            None => self.nothing(ResponseCode::NXDomain),
        }
    }

    fn nothing(&self, code: ResponseCode) -> Reply {
        Reply { code, answers: vec![], authorities: vec![self.soa()], additionals: vec![] }
    }

    fn soa(&self) -> Record {
        let (server, master) = (self.name("ns.dns").unwrap_or_default(), self.name("hostmaster").unwrap_or_default());
        self.record(&self.domain, RData::SOA(SOA::new(server, master, self.serial, 7200, 1800, 86_400, TTL_S)))
    }

    fn name(&self, below: &str) -> Option<Name> {
        Name::from_ascii(below).ok()?.append_domain(&self.domain).ok()
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), TTL_S, data)
    }

    fn address(&self, name: &Name, ip: IpAddr) -> Record {
        let data = match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        self.record(name, data)
    }
}

fn protocol(said: Option<&str>) -> String {
    said.unwrap_or("TCP").to_ascii_lowercase()
}

/// "the hostname is the IP with dots or colons replaced by dashes".
fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn undashed(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

#[cfg(test)]
mod tests;
