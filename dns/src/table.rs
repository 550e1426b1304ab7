//! The look-up table that queries are answered from: built whole out of one topology, never changed. Pure.
//!
//! In: a topology and the configuration. Out: zones, members with their renaming, policies by service and host, address ranges. A bad
//! object is left out alone and named in [`Table::bad_records`]; the others go on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use atoll_api::kinds::{DnsProtocol, MemberDns, Soa};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{ClusterFacts, Topology, Version};
use hickory_proto::rr::{Name, Record, RecordType};
use ipnet::IpNet;

use crate::arpa::{Reverse, reverse};
use crate::changes::same_ground;
use crate::client::{Asker, Clients};
use crate::completion;
use crate::config::Config;
use crate::geo::Geo;
use crate::home::Homestead;
use crate::kinds::Kind;
use crate::names::{absolute, ancestors, below, left_of};
use crate::policy::Policy;
use crate::prefixes::Prefixes;
use crate::translate::Rename;
use crate::tsig::{Key, Keyring};
use crate::zones::{Inputs, Zone, Zones};

/// How long a negative answer of ours may be kept where no Zone says it: what is absent now may be there in a moment.
pub(crate) const NEGATIVE_TTL: u32 = 5;
/// The zone of the multi-cluster services API.
pub(crate) const CLUSTERSET: &str = "clusterset.local";

/// A member as names see it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: ClusterName,
    pub(crate) rename: Rename,
    pub(crate) kind: &'static Kind,
    pub(crate) servers: Vec<SocketAddr>,
    /// Asked by TCP always.
    pub(crate) tcp_only: bool,
    /// Another number whenever what its names mean may be different.
    pub(crate) fingerprint: u64,
}

impl Member {
    fn new(facts: &ClusterFacts, apex: &Name) -> Option<Self> {
        Self::called(below(&[facts.name.as_str()], apex)?, facts)
    }

    /// With its subtree under the name `hub`.
    pub(crate) fn called(hub: Name, facts: &ClusterFacts) -> Option<Self> {
        let none = MemberDns::default();
        let dns = facts.dns.as_ref().unwrap_or(&none);
        let kind = Kind::of(dns.kind);
        let native = match (dns.domain.as_str(), kind.domain) {
            ("", Some(domain)) => absolute(domain)?,
            // It has the names that we give it.
            ("", None) => hub.clone(),
            (domain, _) => absolute(domain)?,
        };
        let aliases: Vec<(String, Name)> =
            dns.aliases.iter().filter_map(|a| Some((a.name.clone(), absolute(&a.domain)?))).collect();
        let mut hasher = DefaultHasher::new();
        let ranges: Vec<IpNet> = ranges(facts).collect();
        (facts.name.as_str(), &hub, &native, &aliases, &dns.servers, &ranges).hash(&mut hasher);
        Some(Self {
            name: facts.name.clone(),
            rename: Rename::new(hub, native, &aliases, ranges),
            kind,
            servers: dns.servers.iter().filter_map(|s| server(s)).collect(),
            tcp_only: dns.protocol == DnsProtocol::TCP || kind.tcp_only,
            fingerprint: hasher.finish(),
        })
    }

    /// Whether it can't have `native`, as it calls the name.
    pub(crate) fn has_never(&self, native: &Name) -> bool {
        self.path(native).is_some_and(|path| completion::is_none(&path))
    }

    /// The same of a name that has this path left of its subtree's own.
    pub(crate) fn has_never_below(&self, path: &[&[u8]]) -> bool {
        let aliased = path.last().is_some_and(|last| self.rename.is_alias(last));
        self.kind.specified && !aliased && completion::is_none(path)
    }

    /// The names above `name`, nearest first, below which nothing is when they are not there.
    pub(crate) fn above(&self, native: &Name) -> Vec<Name> {
        let path = self.path(native).unwrap_or_default();
        let hub = self.rename.hub();
        completion::cuts(&path).filter_map(|n| below(&path[path.len() - n..], hub)).collect()
    }

    /// A name of its that is there and has names below it: who denies that one is not believed on what lies below others.
    pub(crate) fn inner(&self) -> Option<Name> {
        below(&["default", "svc"], self.rename.hub()).filter(|_| self.kind.specified)
    }

    /// The labels of `native` left of its own domain, where the specification says what they may be.
    fn path<'n>(&self, native: &'n Name) -> Option<Vec<&'n [u8]>> {
        left_of(native, self.rename.native()).filter(|_| self.kind.specified)
    }

    /// The SOA of its subtree, for negative answers that bring none of their own.
    pub(crate) fn soa(&self) -> Record {
        soa_of(self.rename.hub().clone())
    }

    /// The SOA of the reverse zone that the range around `name` makes.
    pub(crate) fn reverse_soa(&self, name: &Name) -> Record {
        let ranges = self.rename.ranges().iter();
        let net = reverse(name).and_then(|reverse| {
            let around =
                ranges.clone().filter(|range| range.contains(&reverse.net)).max_by_key(|range| range.prefix_len());
            // A name of its owner's making may lie above the range (RFC 2317 §4).
            around.or_else(|| ranges.filter(|range| !reverse.whole && reverse.net.contains(*range)).min())
        });
        // One label for each octet, or each half of one, and two for `in-addr.arpa` or `ip6.arpa`.
        let labels = net.map_or(2, |net| 2 + usize::from(net.prefix_len() / if net.addr().is_ipv4() { 8 } else { 4 }));
        soa_of(name.trim_to(labels.min(name.iter().len())))
    }
}

/// The SOA of a zone that is made of what a member is.
fn soa_of(zone: Name) -> Record {
    Zone::new(zone, &Soa { negative_ttl: NEGATIVE_TTL, ..Soa::default() }, &[], 1).soa()
}

/// The addresses of a member.
fn ranges(facts: &ClusterFacts) -> impl Iterator<Item = IpNet> {
    facts.cidrs.pods.iter().chain(&facts.cidrs.services).filter_map(|c| c.parse().ok())
}

/// The address of a DNS server as people write it.
pub(crate) fn server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
}

/// Everything that queries are answered from. A clone shares what it is made of.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) topology: Arc<Topology>,
    /// The federation's domain; `None` before the first topology.
    pub(crate) apex: Option<Name>,
    pub(crate) clusterset: Option<Name>,
    pub(crate) members: BTreeMap<ClusterName, Arc<Member>>,
    pub(crate) clients: Arc<Clients>,
    /// TSIG keys.
    pub(crate) keys: Keyring,
    pub(crate) zones: Zones,
    reverse: Prefixes<ClusterName>,
    services: BTreeMap<ServiceName, Arc<Policy>>,
    hosts: HashMap<Name, Arc<Policy>>,
    /// The names of `hosts`.
    named: Arc<HashSet<Name>>,
    nearest: Arc<Policy>,
    every: Arc<Policy>,
    /// The member whose node-local DNS this is.
    pub(crate) home: Option<Arc<Homestead>>,
    bad: Vec<String>,
}

impl Table {
    /// Out of a topology, as the first.
    pub(crate) fn new(topology: &Arc<Topology>, config: &Config, geo: &Geo) -> Self {
        Self::build(topology, (config, geo), None)
    }

    /// Out of a topology, in place of this one. What happens all the time (endpoints, services, health, records) makes nothing anew but what
    /// it says, and the serials that go on with every change.
    pub(crate) fn next(&self, topology: &Arc<Topology>, config: &Config, geo: &Geo) -> Self {
        if !same_ground(&self.topology, topology) || !self.clients.geo().is_same(geo) {
            return Self::build(topology, (config, geo), Some(self));
        }
        let own = self.own();
        let [before, inputs] = [&self.topology, topology].map(|t| self.inputs(t, &own));
        let zones = if own.is_empty() { Zones::default() } else { self.zones.after(before, inputs) };
        Self { topology: Arc::clone(topology), zones, ..self.clone() }
    }

    /// The apexes of the federation's own zones; none before the first topology.
    fn own(&self) -> Vec<Name> {
        self.apex.iter().flat_map(|apex| [Some(apex.clone()), self.clusterset.clone()]).flatten().collect()
    }

    fn inputs<'t>(&'t self, topology: &'t Topology, own: &'t [Name]) -> Inputs<'t> {
        Inputs { topology, own, hosts: &self.named }
    }

    fn build(topology: &Arc<Topology>, (config, geo): (&Config, &Geo), before: Option<&Self>) -> Self {
        let apex = Some(topology.settings.apex.as_str()).filter(|a| !a.is_empty()).and_then(absolute);
        let mut table = Self {
            topology: Arc::clone(topology),
            clusterset: absolute(CLUSTERSET),
            members: BTreeMap::new(),
            clients: Arc::new(Clients::new(topology, config, geo, before.map(|b| b.clients.as_ref()))),
            keys: Keyring::default(),
            zones: Zones::default(),
            reverse: Prefixes::default(),
            services: BTreeMap::new(),
            hosts: HashMap::new(),
            named: Arc::default(),
            nearest: Arc::new(Policy::nearest()),
            every: Arc::new(Policy::every()),
            home: config.home.as_ref().map(|home| Arc::new(Homestead::new(home, topology))),
            bad: Vec::new(),
            apex: apex.clone(),
        };
        let Some(apex) = apex else { return table };
        for facts in topology.clusters.values() {
            // Where its DNS answers is known better here than at the hub.
            let own = table.home.as_ref().filter(|home| home.cluster == facts.name).map(|home| home.facts(facts));
            table.member(own.as_ref().unwrap_or(facts), &apex);
        }
        table.policies();
        let own = table.own();
        table.zones = match before.filter(|before| before.own() == own) {
            Some(before) => before.zones.after(before.inputs(&before.topology, &own), table.inputs(topology, &own)),
            None => Zones::new(table.inputs(topology, &own)),
        };
        table.keyring();
        table
    }

    /// The members whose ranges hold `ip`, and the range.
    pub(crate) fn owners(&self, ip: IpAddr) -> Option<(IpNet, &[ClusterName])> {
        self.reverse.find(ip)
    }

    /// Which topology it is.
    pub(crate) fn version(&self) -> Version {
        self.topology.version
    }

    /// The zone that `name` lies in, the longest.
    pub(crate) fn zone_of(&self, name: &Name) -> Option<&Arc<Zone>> {
        self.zones.around(name).next()
    }

    /// The zone that `name` lies in for `asker`, the longest of those that its view shows.
    pub(crate) fn zone_for(&self, asker: &Asker, name: &Name) -> Option<&Arc<Zone>> {
        self.zones.around(name).find(|zone| self.clients.sees(asker, zone.apex()))
    }

    /// The zone that answers `asker` for a name and a type, the longest that it sees; for the DS of a zone the one above it (RFC 4035
    /// §3.1.4.1).
    pub(crate) fn zone_placing(&self, asker: &Asker, name: &Name, kind: RecordType) -> Option<&Arc<Zone>> {
        let child = kind == RecordType::DS && !name.is_root() && self.zones.at(name).is_some();
        let above = || self.zone_for(asker, &name.base_name());
        child.then(above).flatten().or_else(|| self.zone_for(asker, name))
    }

    /// The policy of a service; the nearest where none was written.
    pub(crate) fn policy(&self, service: &ServiceName) -> &Arc<Policy> {
        self.services.get(service).unwrap_or(&self.nearest)
    }

    /// The policy of a headless service by its names in `zone`.
    pub(crate) fn headless_policy(&self, service: &ServiceName, zone: &Zone) -> &Arc<Policy> {
        let specified = self.clusterset.as_ref() == Some(zone.apex());
        self.services.get(service).unwrap_or(if specified { &self.every } else { &self.nearest })
    }

    /// The policy of a host, or of the wildcard above it.
    pub(crate) fn host(&self, name: &Name) -> Option<&Arc<Policy>> {
        self.hosts.get(name).or_else(|| {
            let above = ancestors(name).skip(1).take_while(|n| !n.is_root());
            above.filter_map(|n| below(&["*"], &n)).find_map(|wild| self.hosts.get(&wild))
        })
    }

    /// The hosts that policies name, wildcards as they are written.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Name> {
        self.hosts.keys()
    }

    /// The members that a name of a reverse zone belongs to, with their range: of an address those who hold it, the narrowest range
    /// first; of a range those who hold all of it; of a name below a range (RFC 2317) those who have a part of it, too.
    pub(crate) fn owners_of(&self, reverse: &Reverse) -> Vec<(IpNet, &ClusterName)> {
        let holders = self.reverse.all(reverse.net.addr()).filter(|(range, _)| range.contains(&reverse.net));
        let mut owners: Vec<_> = holders.collect();
        if !reverse.whole {
            let mut parts: Vec<_> = self.reverse.inside(reverse.net).filter(|part| !owners.contains(part)).collect();
            parts.sort_unstable();
            owners.extend(parts);
        }
        owners
    }

    /// What was left out, and why.
    pub(crate) fn bad_records(&self) -> impl Iterator<Item = &String> {
        self.bad.iter().chain(self.zones.faults())
    }

    /// What was left out that was not left out `before`, and why.
    pub(crate) fn newly_bad(&self, before: &Self) -> Vec<String> {
        let other = self.bad.iter().filter(|why| !before.bad.contains(why)).cloned();
        other.chain(self.zones.new_faults(&before.zones)).collect()
    }

    fn member(&mut self, facts: &ClusterFacts, apex: &Name) {
        let Some(member) = Member::new(facts, apex) else {
            self.bad.push(format!("cluster `{}`: its DNS domain is no name", facts.name));
            return;
        };
        for (label, domain) in member.rename.hiding() {
            self.bad.push(format!("cluster `{}`: alias `{label}` of {domain} is taken, or no label", facts.name));
        }
        for net in ranges(facts) {
            self.reverse.insert(net, member.name.clone());
        }
        self.members.insert(member.name.clone(), Arc::new(member));
    }

    fn policies(&mut self) {
        let topology = Arc::clone(&self.topology);
        for (name, facts) in &topology.traffic {
            let policy = Arc::new(Policy::new(name, facts));
            self.bad.extend(policy.bad.clone());
            if let Some(service) = &facts.service {
                let service = ServiceName::new(name.namespace.clone(), service.clone());
                self.services.entry(service).or_insert_with(|| Arc::clone(&policy));
            }
            for host in facts.hosts.iter().filter_map(|h| absolute(h)) {
                self.hosts.entry(host).or_insert_with(|| Arc::clone(&policy));
            }
        }
        self.named = Arc::new(self.hosts.keys().cloned().collect());
    }

    fn keyring(&mut self) {
        let topology = Arc::clone(&self.topology);
        for (object, keys) in &topology.keys {
            for (name, key) in &keys.tsig {
                match Key::new(name, &key.algorithm, &key.secret) {
                    Some(key) if self.keys.add(key.clone()) => {}
                    Some(_) => self.bad.push(format!("zone `{object}`: another TSIG key is called `{name}`, too")),
                    None => self.bad.push(format!("zone `{object}`: TSIG key `{name}` can't be used")),
                }
            }
        }
    }
}
