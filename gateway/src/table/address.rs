//! Which addresses a Gateway has of its own: those it chose, those it had, else the first free ones of the pool; Services of type LoadBalancer have
//! theirs of the same one (`lease`). Pure.
//!
//! In: the pool, the Gateways with their statuses, what was given in this life. Out: addresses for each, one of each family of the
//! pool. What a Gateway has it keeps as long as it exists and the pool holds it; of two that choose one address the older gets it.
//! Source: Gateway API (GatewaySpec.addresses).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::kinds::gateway::Gateway;
use ipnet::IpNet;
use kube::ResourceExt as _;

use super::backend::Problem;
use super::lease::{Held, give, keep};
use crate::balancer::Balancers;

/// Addresses looked at until a free one is found.
const LOOKED_MAX: usize = 1 << 16;

/// What was given in this life, by the Gateway's namespace and name, until its status says so.
pub(crate) type Allotted = BTreeMap<(String, String), Vec<IpAddr>>;

/// Addresses of one Gateway.
pub(super) type Given = Result<Vec<IpAddr>, Problem>;

/// Gives each Gateway its addresses; `gateways` are the oldest first, and among them those that stand for Services.
pub(super) fn allot(
    pool: &[IpNet],
    gateways: &[&Arc<Gateway>],
    balancers: &Balancers,
    before: &mut Allotted,
) -> Vec<Given> {
    let service = |at: usize| balancers.all.get(&key(gateways[at]));
    let places = || 0..gateways.len();
    let services = |own: bool| places().filter(move |at| service(*at).is_some_and(|b| b.cluster.is_none() == own));
    let mut held = Held::default();
    let mut kept: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
    let mut keeps = |at: usize, had: &[IpAddr], held: &mut Held| {
        let own = service(at).map(|balanced| keep(pool, balanced, had, held)).unwrap_or_default();
        kept.entry(at).or_default().extend(own);
    };
    let given_before = |at: usize| before.get(&key(gateways[at])).cloned().unwrap_or_default();
    for at in services(true) {
        let said = service(at).map(|balanced| balanced.facts.has.clone()).unwrap_or_default();
        keeps(at, &if said.is_empty() { given_before(at) } else { said }, &mut held);
    }
    // What a member says that its Service has may be another's: what was given in this life goes first.
    services(false).for_each(|at| keeps(at, &given_before(at), &mut held));
    let gateway = |at: &usize| service(*at).is_none();
    let mut given: Vec<Option<Given>> = vec![None; gateways.len()];
    for at in places().filter(gateway) {
        given[at] = chosen(pool, gateways[at], &mut held).transpose();
    }
    for at in places().filter(gateway).filter(|at| given[*at].is_none()).collect::<Vec<_>>() {
        let own = had(gateways[at], before).into_iter();
        let own = own.filter(|ip| contains(pool, *ip) && held.gateway(*ip, &label(gateways[at]))).collect();
        kept.insert(at, own);
    }
    for at in services(false).filter(|at| given_before(*at).is_empty()) {
        let said = service(at).map(|balanced| balanced.facts.has.clone()).unwrap_or_default();
        let own = service(at).map(|balanced| keep(pool, balanced, &said, &mut held)).unwrap_or_default();
        kept.entry(at).or_default().extend(own);
    }
    for at in places().filter(gateway).filter(|at| given[*at].is_none()).collect::<Vec<_>>() {
        let own = kept.remove(&at).unwrap_or_default();
        given[at] = Some(fresh(pool, gateways[at], own, &mut held));
    }
    // What is wished for is not given to whoever takes anything.
    let wishes = |wished: bool| move |at: &usize| service(*at).is_some_and(|b| b.facts.wishes.is_empty() != wished);
    let all = || services(true).chain(services(false));
    for at in all().filter(wishes(true)).chain(all().filter(wishes(false))) {
        let own = kept.remove(&at).unwrap_or_default();
        given[at] = service(at).map(|balanced| give(pool, balanced, own, &mut held));
    }
    let given: Vec<Given> = given.into_iter().flatten().collect();
    let known = |(g, given): (&&Arc<Gateway>, &Given)| Some((key(g), given.as_ref().ok()?.clone()));
    *before = gateways.iter().zip(&given).filter_map(known).collect();
    given
}

/// Beside what a Gateway keeps the first free address of each family of the pool.
fn fresh(pool: &[IpNet], gateway: &Gateway, mut own: Vec<IpAddr>, held: &mut Held) -> Given {
    for v4 in [true, false] {
        let of_family: Vec<&IpNet> = pool.iter().filter(|range| range.addr().is_ipv4() == v4).collect();
        if of_family.is_empty() || own.iter().any(|ip| ip.is_ipv4() == v4) {
            continue;
        }
        let hosts = of_family.iter().flat_map(|range| hosts(range)).take(LOOKED_MAX);
        own.extend(hosts.into_iter().find(|ip| held.gateway(*ip, &label(gateway))));
    }
    if own.is_empty() {
        return Err(Problem::new("AddressNotAssigned", "no address of gateway.addresses is free"));
    }
    Ok(own)
}

/// The addresses that a Gateway chooses; nothing where it leaves the choice to us.
fn chosen(pool: &[IpNet], gateway: &Gateway, held: &mut Held) -> Result<Option<Vec<IpAddr>>, Problem> {
    let wishes = &gateway.spec.addresses;
    if let Some(odd) = wishes.iter().find(|w| w.address_type.as_deref().is_some_and(|t| t != "IPAddress")) {
        let odd = odd.address_type.as_deref().unwrap_or_default();
        return Err(Problem::new("UnsupportedAddress", format!("address type `{odd}` is not served")));
    }
    let mut own = Vec::new();
    for wish in wishes.iter().filter(|w| !w.value.is_empty()) {
        let unusable = |why: &str| Problem::new("AddressNotUsable", format!("address {}: {why}", wish.value));
        let ip: IpAddr = wish.value.parse().map_err(|_| unusable("is none"))?;
        if !contains(pool, ip) {
            return Err(unusable("not in gateway.addresses"));
        }
        own.push(ip);
    }
    if let Some((taken, who)) = own.iter().find_map(|ip| Some((ip, held.holder(*ip)?))) {
        return Err(Problem::new("AddressNotUsable", format!("address {taken}: {who} has it")));
    }
    for ip in &own {
        held.gateway(*ip, &label(gateway));
    }
    Ok(Some(own).filter(|own| !own.is_empty()))
}

fn had(gateway: &Gateway, before: &Allotted) -> Vec<IpAddr> {
    let said = gateway.status.as_ref().map(|s| s.addresses.as_slice()).unwrap_or_default();
    let said: Vec<IpAddr> = said.iter().filter_map(|a| a.value.parse().ok()).collect();
    if said.is_empty() { before.get(&key(gateway)).cloned().unwrap_or_default() } else { said }
}

fn key(gateway: &Gateway) -> (String, String) {
    (gateway.namespace().unwrap_or_default(), gateway.name_any())
}

fn label(gateway: &Gateway) -> String {
    format!("{}/{}", gateway.namespace().unwrap_or_default(), gateway.name_any())
}

/// Whether an address is one that the pool gives.
pub(super) fn contains(pool: &[IpNet], ip: IpAddr) -> bool {
    pool.iter().any(|range| range.contains(&ip))
}

/// The addresses that a range gives without being asked for one, in order.
pub(super) fn hosts(range: &IpNet) -> impl Iterator<Item = IpAddr> {
    // RFC 4291, 2.6.1: "Packets sent to the Subnet-Router anycast address will be delivered to one router on the subnet": the prefix, then zeros,
    // where the range is a subnet of this machine that it routes for. It can still be chosen where it is not. RFC 6164: a /127 has none.
    let routers = range.network().is_ipv6() && range.prefix_len() < 127;
    range.hosts().skip(usize::from(routers))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn gateway(name: &str, wish: Value, status: Value) -> Arc<Gateway> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "a"},
                "spec": {"gatewayClassName": "atoll", "listeners": [], "addresses": wish}, "status": {"addresses": status}}))
            .unwrap(),
        )
    }

    #[test]
    fn what_is_chosen_and_what_was_had_goes_before_what_is_new() {
        let one = |ip: &str| json!([{"value": ip}]);
        let none = || json!([]);
        let cases = [
            (
                "new ones in order",
                vec![gateway("a", none(), none()), gateway("b", none(), none())],
                "10.0.0.1 10.0.0.2",
            ),
            (
                "status is kept",
                vec![gateway("a", none(), none()), gateway("b", none(), one("10.0.0.1"))],
                "10.0.0.2 10.0.0.1",
            ),
            (
                "choice",
                vec![gateway("a", none(), one("10.0.0.2")), gateway("b", one("10.0.0.2"), none())],
                "10.0.0.1 10.0.0.2",
            ),
            (
                "choice of two",
                vec![gateway("a", one("10.0.0.3"), none()), gateway("b", one("10.0.0.3"), none())],
                "10.0.0.3 AddressNotUsable",
            ),
            ("foreign", vec![gateway("a", one("10.9.0.1"), none())], "AddressNotUsable"),
            ("outside now", vec![gateway("a", none(), one("10.9.0.1"))], "10.0.0.1"),
            ("odd", vec![gateway("a", json!([{"type": "x/y", "value": "z"}]), none())], "UnsupportedAddress"),
            ("empty value", vec![gateway("a", json!([{"type": "IPAddress"}]), none())], "10.0.0.1"),
        ];
        for (name, gateways, expected) in cases {
            let gateways: Vec<&Arc<Gateway>> = gateways.iter().collect();
            let given =
                allot(&["10.0.0.0/29".parse().unwrap()], &gateways, &Balancers::default(), &mut Allotted::new());
            let said: Vec<String> = given
                .iter()
                .map(|g| g.as_ref().map_or_else(|p| p.reason.to_owned(), |ips| ips[0].to_string()))
                .collect();
            assert_eq!(said.join(" "), expected, "{name}");
        }
    }

    #[test]
    fn an_address_stays_before_its_status_is_written_and_families_are_given_together() {
        let pool = ["10.0.0.0/30".parse().unwrap(), "fd00::/126".parse().unwrap()];
        let (mut before, none) = (Allotted::new(), &Balancers::default());
        let (old, new) = (gateway("b", json!([]), json!([])), gateway("a", json!([]), json!([])));
        let first = allot(&pool, &[&old], none, &mut before);
        assert_eq!(first[0].as_ref().unwrap().len(), 2);
        let second = allot(&pool, &[&new, &old], none, &mut before);
        assert_eq!(second[1], first[0], "what sorts before it takes nothing away");
        let third = gateway("c", json!([]), json!([]));
        let given = allot(&pool[..1], &[&new, &old, &third], none, &mut before);
        assert_eq!(given[2].as_ref().unwrap_err().reason, "AddressNotAssigned", "the pool is bounded");
    }

    #[test]
    fn the_first_address_of_an_ipv6_range_is_given_to_who_asks_for_it() {
        let given = |range: &str, wish: Value, status: Value| {
            let gateway = gateway("a", wish, status);
            allot(&[range.parse().unwrap()], &[&gateway], &Balancers::default(), &mut Allotted::new()).remove(0)
        };
        let first = || json!([{"value": "fd00::"}]);
        for (case, range, wish, status, expected) in [
            ("new", "fd00::/120", json!([]), json!([]), "fd00::1"),
            ("had", "fd00::/120", json!([]), first(), "fd00::"),
            ("chosen", "fd00::/120", first(), json!([]), "fd00::"),
            ("two", "fd00::/127", json!([]), json!([]), "fd00::"),
            ("one", "fd00::/128", first(), json!([]), "fd00::"),
        ] {
            assert_eq!(given(range, wish, status).unwrap(), [expected.parse::<IpAddr>().unwrap()], "{case}");
        }
    }
}
