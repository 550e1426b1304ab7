//! The Service of type LoadBalancer that stands before each Gateway in a cluster: which of a replica's ports it sends to, and where it is
//! reached. Pure.
//!
//! In: Gateways and their Services as they are. Out: [`Front`], with the ports that the Service is to have. Each port of a Gateway has one of
//! a replica's own behind it, so that Gateways do not meet there. It stands in the Service (`targetPort`), and every replica takes it from
//! there. Source: GEP-1762 (names and labels of what is made for a Gateway).

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::kinds::MANAGED_BY;
use atoll_api::kinds::gateway::Gateway;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::backend::Problem;
use crate::fleet::Fleet;
use crate::ingress::mark;
use crate::objects::{Name, Objects, name_of};

/// Who keeps what is made for Gateways, as [`MANAGED_BY`] says there.
pub(crate) const MANAGER: &str = "atoll-gateway";
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
pub(crate) const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// A replica's ports for Gateways.
const TARGETS: std::ops::RangeInclusive<u16> = 20_000..=29_999;
/// The longest name of a Service.
const NAME_MAX: usize = 63;

/// A port of a Gateway: whether it is UDP, and its number.
pub(crate) type Port = (bool, u16);

/// The replica's port for each of a Gateway's.
pub(crate) type Targets = BTreeMap<Port, u16>;

/// The Service before a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Front {
    /// Of the Service, in the Gateway's namespace.
    pub(crate) name: String,
    /// What is there under this name is somebody else's.
    foreign: bool,
    /// The ports that it has.
    pub(super) targets: Targets,
    /// Those that it is to have.
    pub(crate) wanted: Targets,
    /// Where its load balancer is reached.
    pub(crate) addresses: Vec<String>,
}

impl Front {
    /// The Service of a Gateway as it is.
    pub(super) fn of(objects: &Objects, gateway: &Gateway) -> Self {
        let name = name(gateway);
        let found = objects.services.get(&gateway.namespace().unwrap_or_default(), &name);
        let Some(service) = found else { return Self { name, ..Self::default() } };
        if !is_front(service) || service.labels().get(GATEWAY_NAME) != Some(&label(&gateway.name_any())) {
            return Self { name, foreign: true, ..Self::default() };
        }
        let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
        let addresses = status.into_iter().flatten().filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone()));
        Self { name, targets: targets(service), addresses: addresses.collect(), ..Self::default() }
    }

    /// Whether it may be made as it is to be.
    pub(crate) fn is_ours(&self) -> bool {
        !self.foreign && !self.wanted.is_empty()
    }

    /// Whether it is not yet, or no longer, as it is to be.
    pub(crate) fn is_stale(&self) -> bool {
        self.targets != self.wanted
    }

    /// Why the Gateway is not reached as it asks to be.
    pub(crate) fn hindered(&self, gateway: &Gateway) -> Option<Problem> {
        let Self { name, addresses, .. } = self;
        if self.foreign {
            return Some(Problem::new(
                "AddressNotAssigned",
                format!("Service `{name}` is there and not the gateway's"),
            ));
        }
        if addresses.is_empty() {
            return Some(Problem::new("AddressNotAssigned", format!("Service `{name}` has no address yet")));
        }
        let mut wishes = gateway.spec.addresses.iter().map(|a| &a.value).filter(|value| !value.is_empty());
        let missing = wishes.find(|wish| !addresses.contains(wish))?;
        let why = format!("address {missing}: Service `{name}` has {}", addresses.join(", "));
        Some(Problem::new("AddressNotUsable", why))
    }
}

/// Whether a Service is one that stands before a Gateway.
pub(crate) fn is_front(service: &Service) -> bool {
    service.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER) && service.labels().contains_key(GATEWAY_NAME)
}

/// A Service's name is a label of at most 63 letters that begins with one.
fn name(gateway: &Gateway) -> String {
    let whole = format!("{}-{}", gateway.name_any(), gateway.spec.gateway_class_name);
    if whole.len() <= NAME_MAX && !whole.contains('.') && whole.starts_with(|c: char| c.is_ascii_lowercase()) {
        return whole;
    }
    let kept: String = whole.chars().take(40).map(|c| if c == '.' { '-' } else { c }).collect();
    format!("gw-{kept}-{}", mark(&whole))
}

/// A name as the value of a label, which has at most 63 letters.
pub(crate) fn label(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return name.to_owned();
    }
    let kept: String = name.chars().take(40).collect();
    format!("{kept}-{}", mark(name))
}

fn targets(service: &Service) -> Targets {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let each = ports.into_iter().flatten().filter_map(|port| {
        let Some(IntOrString::Int(target)) = port.target_port else { return None };
        let is_udp = port.protocol.as_deref() == Some("UDP");
        Some(((is_udp, u16::try_from(port.port).ok()?), u16::try_from(target).ok()?))
    });
    each.collect()
}

/// The ports that a Gateway wants.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) ports: BTreeSet<Port>,
    /// Those of TCP that are to be there by UDP, too, with the same port behind them, where nobody else wants that: for HTTP/3.
    pub(super) twins: BTreeSet<u16>,
}

/// Settles the replica's port for each port of the Gateways, the oldest first. What the Services have is kept; else what was settled in this
/// life, so that it does not change while a Service is being made.
pub(super) fn settle(gateways: Vec<(Name, &mut Front, Wish)>, before: &mut BTreeMap<Name, Targets>) {
    let mut used: BTreeSet<u16> = BTreeSet::new();
    let mut open = Vec::new();
    for (name, front, Wish { ports, twins }) in gateways {
        let settled = before.remove(&name).unwrap_or_default();
        for port in &ports {
            let had = front.targets.get(port).or_else(|| settled.get(port)).copied();
            if let Some(target) = had.filter(|target| TARGETS.contains(target) && used.insert(*target)) {
                front.wanted.insert(*port, target);
            }
        }
        open.push((name, front, ports, twins));
    }
    before.clear();
    let mut free = TARGETS.filter(|target| !used.contains(target)).collect::<Vec<_>>().into_iter();
    for (name, front, ports, twins) in open {
        for port in ports {
            if !front.wanted.contains_key(&port)
                && let Some(target) = free.next()
            {
                front.wanted.insert(port, target);
            }
        }
        for port in twins {
            if let Some(target) = front.wanted.get(&(false, port)).copied() {
                front.wanted.entry((true, port)).or_insert(target);
            }
        }
        before.insert(name, front.wanted.clone());
    }
}

/// Services of this fleet's that no Gateway wants any more.
pub(super) fn strays(objects: &Objects, fleet: &Fleet, wanted: &BTreeSet<Name>) -> Vec<Name> {
    let of_us = |service: &Service| {
        let class = service.labels().get(CLASS_NAME).and_then(|class| objects.classes.get("", class));
        is_front(service) && class.is_some_and(|class| fleet.takes(class))
    };
    let strays = objects.services.iter().filter(|s| of_us(s)).map(|s| name_of(&**s));
    strays.filter(|name| !wanted.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(name: &str) -> Gateway {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"},
            "spec": {"gatewayClassName": "atoll", "listeners": []}}))
        .unwrap()
    }

    #[test]
    fn ports_stay_with_their_gateway_and_no_two_gateways_share_one() {
        let ports = |all: &[u16]| all.iter().map(|port| (false, *port)).collect::<BTreeSet<Port>>();
        let name = |name: &str| ("a".to_owned(), name.to_owned());
        let has = |targets: &[(u16, u16)]| Front {
            targets: targets.iter().map(|(port, target)| ((false, *port), *target)).collect(),
            ..Front::default()
        };
        let mut before = BTreeMap::new();
        let mut settled = |all: &mut [(&str, Front, &[u16])]| -> Vec<Vec<u16>> {
            let gateways = all
                .iter_mut()
                .map(|(at, front, wish)| (name(at), front, Wish { ports: ports(wish), ..Wish::default() }));
            let gateways = gateways.collect();
            settle(gateways, &mut before);
            all.iter().map(|(_, front, _)| front.wanted.values().copied().collect()).collect()
        };
        let new = Front::default;
        assert_eq!(settled(&mut [("b", new(), &[80, 443])]), [[20_000, 20_001]]);
        let both = settled(&mut [("a", new(), &[80]), ("b", new(), &[80, 443])]);
        assert_eq!(both, [vec![20_002], vec![20_000, 20_001]], "what is older takes nothing away");
        let kept = settled(&mut [("b", has(&[(80, 20_007)]), &[80, 8443])]);
        assert_eq!(kept, [[20_007, 20_000]], "what the Service has counts; a port that goes is free");
        let clash = settled(&mut [("a", has(&[(80, 20_005)]), &[80]), ("b", has(&[(80, 20_005)]), &[80])]);
        assert_eq!(clash, [[20_005], [20_000]]);
        let odd = settled(&mut [("a", has(&[(80, 22)]), &[80])]);
        assert_eq!(odd, [[20_000]], "nobody makes us listen elsewhere");
    }

    #[test]
    fn a_long_name_is_the_value_of_a_label_too() {
        let long = "a".repeat(253);
        let (one, other) = (label(&long), label(&long[1..]));
        assert!(one.len() <= NAME_MAX && one.starts_with("aaa") && one != other, "{one} {other}");
        assert_eq!(label("web.shop"), "web.shop");
    }

    #[test]
    fn http3_has_the_port_of_https_by_udp_unless_a_udp_listener_wants_it() {
        let settled = |ports: &[Port]| {
            let wish = Wish { ports: ports.iter().copied().collect(), twins: BTreeSet::from([443]) };
            let mut front = Front::default();
            settle(vec![(("a".to_owned(), "b".to_owned()), &mut front, wish)], &mut BTreeMap::new());
            front.wanted.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(settled(&[(false, 443)]), [((false, 443), 20_000), ((true, 443), 20_000)]);
        assert_eq!(settled(&[(false, 443), (true, 443)]), [((false, 443), 20_000), ((true, 443), 20_001)]);
    }

    #[test]
    fn every_gateway_has_a_name_that_a_service_can_have() {
        for (of, expected) in [("main", "main-atoll"), ("2nd", "gw-2nd-atoll-"), ("a.b", "gw-a-b-atoll-")] {
            assert!(name(&gateway(of)).starts_with(expected), "{}", name(&gateway(of)));
        }
        let long = name(&gateway(&"x".repeat(200)));
        assert!(long.len() <= NAME_MAX && long != name(&gateway(&"x".repeat(201))), "{long}");
    }

    #[test]
    fn what_hinders_a_gateway_is_said() {
        let wishing = |value: &str| {
            let mut gateway = gateway("main");
            gateway.spec.addresses = serde_json::from_value(json!([{"value": value}])).unwrap();
            gateway
        };
        let service = |labels: serde_json::Value, status: serde_json::Value| {
            Objects {
            services: [std::sync::Arc::new(
                serde_json::from_value(json!({"metadata": {"name": "main-atoll", "namespace": "a", "labels": labels},
                    "spec": {"ports": [{"port": 80, "targetPort": 20000}]}, "status": {"loadBalancer": {"ingress": status}}}))
                .unwrap(),
            )]
            .into_iter()
            .collect(),
            ..Objects::default()
        }
        };
        let ours = || json!({MANAGED_BY: MANAGER, GATEWAY_NAME: "main"});
        for (case, objects, gateway, reason) in [
            ("nothing there", Objects::default(), wishing(""), Some("AddressNotAssigned")),
            (
                "somebody else's",
                service(json!({}), json!([{"ip": "192.0.2.9"}])),
                wishing(""),
                Some("AddressNotAssigned"),
            ),
            ("no address", service(ours(), json!([])), wishing(""), Some("AddressNotAssigned")),
            ("an address", service(ours(), json!([{"ip": "192.0.2.9"}])), wishing(""), None),
            ("a name", service(ours(), json!([{"hostname": "lb.test"}])), wishing(""), None),
            ("the chosen one", service(ours(), json!([{"ip": "192.0.2.9"}])), wishing("192.0.2.9"), None),
            ("another", service(ours(), json!([{"ip": "192.0.2.9"}])), wishing("192.0.2.8"), Some("AddressNotUsable")),
        ] {
            let front = Front::of(&objects, &gateway);
            assert_eq!(front.hindered(&gateway).map(|p| p.reason), reason, "{case}: {front:?}");
        }
    }
}
