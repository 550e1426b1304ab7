//! Services of type LoadBalancer that gateways serve: what one asks for, whoever's it is, and what became of it.
//!
//! In: a Service, of the hub's API or of a member. Out: [`BalancerFacts`]; and [`BalancerState`], which its status repeats. What can't be read is
//! said in `odd`, and such a Service is not served: a range that nobody understands would keep nobody out. Sources: Kubernetes, "Service"
//! (`loadBalancerClass`, `loadBalancerSourceRanges`, `sessionAffinity`); KEP-1860 (`ipMode`); KEP-1435 (`ports`); MetalLB's and kube-vip's
//! annotations for addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, PortStatus, Service, ServiceSpec};
use serde::{Deserialize, Serialize};

use super::ServicePort;

/// The `loadBalancerClass` of Services that gateways serve.
pub const BALANCER_CLASS: &str = "atoll.dev/gateway";
/// What the classes of balancers that others own begin with; `gateway` is none of theirs.
pub const BALANCER_CLASS_PREFIX: &str = "atoll.dev/";
/// Which version of the PROXY protocol endpoints are told of clients by: `v1` or `v2`.
pub const PROXY_PROTOCOL: &str = "atoll.dev/proxy-protocol";
/// The addresses wished for, with commas between; the first annotation that is there counts.
const WISHES: &[&str] = &[
    "atoll.dev/load-balancer-ips",
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
    "kube-vip.io/loadbalancerIPs",
];
/// Services of one namespace that say the same here may share an address.
const SHARES: &[&str] =
    &["atoll.dev/allow-shared-ip", "metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip"];
/// Who may come, before there was a field for it.
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// Ports of one Service, and ranges.
const PORTS_MAX: usize = 128;
const RANGES_MAX: usize = 1024;
/// As Kubernetes has it (three hours).
const AFFINITY_S: u32 = 10_800;
/// Annotations are shown up to this length where they can't be read.
const SHOWN_MAX: usize = 100;

/// What a Service of our class asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BalancerFacts {
    /// The class of a balancer that others own, which is to serve it; none: gateways do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Its ports; others than TCP and UDP can't be served.
    pub ports: Vec<ServicePort>,
    /// The addresses wished for; none: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<IpAddr>,
    /// The families that it is to have, the first before the second; none: what there is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<Family>,
    /// It is not served without all of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_all: bool,
    /// Services that say the same may share an address with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<String>,
    /// Who may come; none: everybody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IpNet>,
    /// For so long a client comes back to the endpoint that it was sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_s: Option<u32>,
    /// The version of the PROXY protocol that its endpoints speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<u8>,
    /// The addresses that its status gives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub has: Vec<IpAddr>,
    /// Why it can't be served at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub odd: Option<String>,
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// Version 4.
    IPv4,
    /// Version 6.
    IPv6,
}

impl Family {
    /// Of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::IPv4 } else { Self::IPv6 }
    }
}

/// What became of a Service, as a gateway states it and as its status is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BalancerState {
    /// Which version of what it asks for is meant: the same for the same facts.
    pub mark: String,
    /// Where it is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// The same by name, where a balancer that others own says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Its ports there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<BalancerPort>,
    /// What is not as it asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<BalancerProblem>,
}

/// A port of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalancerPort {
    /// Its number.
    pub port: u16,
    /// TCP, UDP or another.
    pub protocol: String,
    /// Why it is not served, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is told by an Event.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct BalancerProblem {
    /// One word in CamelCase.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Whether a Service is one that gateways serve.
pub fn is_balancer(service: &Service) -> bool {
    is_balancer_of(service, BALANCER_CLASS)
}

/// Whether a Service is of type LoadBalancer and that class, and stays.
pub fn is_balancer_of(service: &Service, class: &str) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.as_deref() == Some(class)
}

impl BalancerFacts {
    /// What a Service asks for; nothing where it is none of ours.
    pub fn of(service: &Service) -> Option<Self> {
        Self::read(service).filter(|_| is_balancer(service))
    }

    /// What a Service of a member asks for: of gateways, or of a balancer that others own, by its class.
    pub fn of_member(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let class = spec.load_balancer_class.as_deref()?;
        let of = class.strip_prefix(BALANCER_CLASS_PREFIX).filter(|_| is_balancer_of(service, class))?;
        Some(Self { class: (class != BALANCER_CLASS).then(|| of.to_owned()), ..Self::read(service)? })
    }

    /// The same, of whatever class; nothing where it is going.
    pub fn read(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        if service.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let annotation = |name: &str| service.metadata.annotations.as_ref()?.get(name).map(|text| text.trim());
        let first = |names: &[&str]| names.iter().find_map(|name| annotation(name).filter(|text| !text.is_empty()));
        let mut facts = Self {
            ports: ports(spec),
            families: families(spec),
            needs_all: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
            shares: first(SHARES).map(str::to_owned),
            affinity_s: affinity(spec),
            has: addresses(service),
            ..Self::default()
        };
        let read = wishes(spec, first(WISHES)).and_then(|wishes| {
            let ranges = ranges(spec, annotation(RANGES))?;
            Ok((wishes, ranges, proxy(annotation(PROXY_PROTOCOL))?))
        });
        match read {
            Ok(read) => (facts.wishes, facts.ranges, facts.proxy) = read,
            Err(why) => facts.odd = Some(why),
        }
        if facts.ports.len() > PORTS_MAX {
            facts.ports.truncate(PORTS_MAX);
            facts.odd.get_or_insert_with(|| format!("it has more than {PORTS_MAX} ports: divide it"));
        }
        Some(facts)
    }
}

impl BalancerState {
    /// `status.loadBalancer.ingress`.
    pub fn ingress(&self) -> Vec<LoadBalancerIngress> {
        let port = |p: &BalancerPort| PortStatus {
            port: i32::from(p.port),
            protocol: p.protocol.clone(),
            error: p.error.as_ref().map(|word| format!("atoll.dev/{word}")),
        };
        let ports = || Some(self.ports.iter().map(port).collect());
        let each = self.addresses.iter().map(|ip| LoadBalancerIngress {
            ip: Some(ip.to_string()),
            // What comes is the gateway's own connection: nodes must not take a short cut.
            ip_mode: Some("Proxy".to_owned()),
            ports: ports(),
            ..LoadBalancerIngress::default()
        });
        let named = self.hostnames.iter().map(|name| LoadBalancerIngress {
            hostname: Some(name.clone()),
            ports: ports(),
            ..LoadBalancerIngress::default()
        });
        each.chain(named).collect()
    }

    /// Every address and name, as statuses give them.
    pub fn reached(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).chain(self.hostnames.iter().cloned()).collect()
    }
}

fn ports(spec: &ServiceSpec) -> Vec<ServicePort> {
    let port = |p: &k8s_openapi::api::core::v1::ServicePort| {
        Some(ServicePort {
            name: p.name.clone().unwrap_or_default(),
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: u16::try_from(p.port).ok()?,
            app_protocol: None,
            node_port: None,
        })
    };
    spec.ports.iter().flatten().filter_map(port).collect()
}

/// As the API server settled them, else as the policy says.
fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten().filter_map(|name| match name.as_str() {
        "IPv4" => Some(Family::IPv4),
        "IPv6" => Some(Family::IPv6),
        _ => None,
    });
    let named: Vec<Family> = named.collect();
    match spec.ip_family_policy.as_deref() {
        _ if !named.is_empty() => named,
        Some("PreferDualStack" | "RequireDualStack") => vec![Family::IPv4, Family::IPv6],
        _ => Vec::new(),
    }
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    let wanted = spec.session_affinity.as_deref() == Some("ClientIP");
    let said = || spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds;
    wanted.then(|| said().and_then(|s| u32::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(AFFINITY_S))
}

/// The addresses that the status of a Service gives.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.as_ref()?.parse().ok()).collect()
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

fn wishes(spec: &ServiceSpec, annotation: Option<&str>) -> Result<Vec<IpAddr>, String> {
    // The annotation is the newer one, and holds both families.
    let (from, text) = match (annotation, spec.load_balancer_ip.as_deref()) {
        (Some(text), _) => ("the annotation for addresses", text),
        (None, Some(text)) if !text.is_empty() => ("spec.loadBalancerIP", text),
        _ => return Ok(Vec::new()),
    };
    let mut wishes = Vec::<IpAddr>::new();
    for part in text.split(',').map(str::trim) {
        let ip: IpAddr = part.parse().map_err(|_| format!("{from}: `{}` is no address", shown(part)))?;
        if wishes.iter().any(|other| Family::of(*other) == Family::of(ip)) {
            return Err(format!("{from}: more than one address of a family"));
        }
        wishes.push(ip);
    }
    Ok(wishes)
}

fn ranges(spec: &ServiceSpec, annotation: Option<&str>) -> Result<Vec<IpNet>, String> {
    let said: Vec<&str> = match &spec.load_balancer_source_ranges {
        Some(ranges) if !ranges.is_empty() => ranges.iter().map(String::as_str).collect(),
        _ => annotation.filter(|text| !text.is_empty()).into_iter().flat_map(|text| text.split(',')).collect(),
    };
    if said.len() > RANGES_MAX {
        return Err(format!("spec.loadBalancerSourceRanges: more than {RANGES_MAX}"));
    }
    let range = |text: &&str| {
        text.trim().parse().map_err(|_| format!("spec.loadBalancerSourceRanges: `{}` is no range", shown(text)))
    };
    said.iter().map(range).collect()
}

fn proxy(annotation: Option<&str>) -> Result<Option<u8>, String> {
    match annotation.map(str::to_ascii_lowercase).as_deref() {
        None | Some("") => Ok(None),
        Some("v1") => Ok(Some(1)),
        Some("v2") => Ok(Some(2)),
        Some(other) => Err(format!("{PROXY_PROTOCOL}: `{}` is neither v1 nor v2", shown(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(annotations: Value, mut spec: Value) -> Option<BalancerFacts> {
        if spec["type"].is_null() {
            spec["type"] = json!("LoadBalancer");
            spec["loadBalancerClass"] = json!(BALANCER_CLASS);
        }
        let service = json!({"metadata": {"name": "web", "annotations": annotations}, "spec": spec});
        BalancerFacts::of(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn only_services_of_our_class_are_read() {
        for (kind, class, ours) in [
            ("LoadBalancer", json!("atoll.dev/gateway"), true),
            ("LoadBalancer", json!("metallb.io/x"), false),
            ("LoadBalancer", Value::Null, false),
            ("ClusterIP", json!("atoll.dev/gateway"), false),
        ] {
            let found = read(Value::Null, json!({"type": kind, "loadBalancerClass": class}));
            assert_eq!(found.is_some(), ours, "{kind} {class}");
        }
    }

    #[test]
    fn of_a_member_the_class_says_whose_it_is() {
        for (kind, class, of) in [
            ("LoadBalancer", "atoll.dev/gateway", Some(None)),
            ("LoadBalancer", "atoll.dev/edge", Some(Some("edge"))),
            ("LoadBalancer", "metallb.io/x", None),
            ("ClusterIP", "atoll.dev/edge", None),
        ] {
            let service = json!({"metadata": {"name": "web"}, "spec": {"type": kind, "loadBalancerClass": class}});
            let facts = BalancerFacts::of_member(&serde_json::from_value(service).unwrap());
            assert_eq!(facts.as_ref().map(|facts| facts.class.as_deref()), of, "{kind} {class}");
        }
    }

    #[test]
    fn a_wish_is_the_annotations_else_the_fields_and_what_cannot_be_read_is_served_to_nobody() {
        for (case, annotations, spec, wishes, odd) in [
            ("none", json!({}), json!({}), "", ""),
            ("field", json!({}), json!({"loadBalancerIP": "10.0.0.7"}), "10.0.0.7", ""),
            (
                "ours",
                json!({"atoll.dev/load-balancer-ips": "10.0.0.8, fd00::8"}),
                json!({"loadBalancerIP": "10.0.0.7"}),
                "10.0.0.8 fd00::8",
                "",
            ),
            ("MetalLB's", json!({"metallb.io/loadBalancerIPs": "fd00::9"}), json!({}), "fd00::9", ""),
            ("a name", json!({}), json!({"loadBalancerIP": "web"}), "", "spec.loadBalancerIP: `web` is no address"),
            (
                "two",
                json!({"metallb.io/loadBalancerIPs": "10.0.0.1,10.0.0.2"}),
                json!({}),
                "",
                "the annotation for addresses: more than one address of a family",
            ),
            (
                "a range that is none",
                json!({}),
                json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "home"]}),
                "",
                "spec.loadBalancerSourceRanges: `home` is no range",
            ),
            (
                "a version",
                json!({"atoll.dev/proxy-protocol": "3"}),
                json!({}),
                "",
                "atoll.dev/proxy-protocol: `3` is neither v1 nor v2",
            ),
        ] {
            let facts = read(annotations, spec).unwrap();
            let said: Vec<String> = facts.wishes.iter().map(ToString::to_string).collect();
            assert_eq!((said.join(" ").as_str(), facts.odd.as_deref().unwrap_or("")), (wishes, odd), "{case}");
        }
    }

    #[test]
    fn what_it_asks_for_is_read_field_by_field() {
        let facts = read(
            json!({"atoll.dev/proxy-protocol": "V2", "metallb.io/allow-shared-ip": "dns"}),
            json!({"ports": [{"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 80}], "ipFamilyPolicy": "RequireDualStack",
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
        )
        .unwrap();
        assert_eq!((facts.proxy, facts.shares.as_deref(), facts.affinity_s), (Some(2), Some("dns"), Some(60)));
        assert_eq!((facts.families, facts.needs_all), (vec![Family::IPv4, Family::IPv6], true));
        let ports: Vec<(u16, &str)> = facts.ports.iter().map(|p| (p.port, p.protocol.as_str())).collect();
        assert_eq!(ports, [(53, "UDP"), (80, "TCP")]);
        assert_eq!(facts.ranges, ["10.0.0.0/8".parse().unwrap()]);
        let plain = read(Value::Null, json!({"sessionAffinity": "ClientIP", "ipFamilies": ["IPv6"]})).unwrap();
        assert_eq!((plain.affinity_s, plain.families), (Some(AFFINITY_S), vec![Family::IPv6]));
        let old = read(json!({RANGES: "192.0.2.0/24,198.51.100.0/24"}), json!({})).unwrap();
        assert_eq!(old.ranges.len(), 2);
    }
}
