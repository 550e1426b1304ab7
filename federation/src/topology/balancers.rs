//! What gateways state of members' Services of type LoadBalancer, by member: each agent is told what its Services' statuses are to say. Pure.
//!
//! Those of balancers that others own are stated by the replica that tells these. Where replicas differ the one that gives addresses counts, then the first by name. Those that are silent count while nobody else states
//! anything: a gateway that starts anew takes no address away.

use std::collections::BTreeMap;

use atoll_api::topology::{BalancerState, Site};

/// By member, then by `namespace/name`.
pub(super) type Stated<'a> = BTreeMap<&'a str, BTreeMap<&'a str, &'a BalancerState>>;

/// Gathers what the sites state.
pub(super) fn stated(sites: &[Site]) -> Stated<'_> {
    let states = |site: &&Site| site.kind == "gateway" && !(site.balancers.is_empty() && site.provided.is_empty());
    let live = sites.iter().filter(states).any(|site| !site.silent);
    let counts = sites.iter().filter(states).filter(|site| !live || !site.silent);
    let mut all = Stated::new();
    for (name, state) in counts.flat_map(|site| site.balancers.iter().chain(&site.provided)) {
        let Some((cluster, service)) = name.split_once('/').filter(|(cluster, _)| !cluster.is_empty()) else {
            continue;
        };
        let known = all.entry(cluster).or_default().entry(service).or_insert(state);
        if known.reached().is_empty() && !state.reached().is_empty() {
            *known = state;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_an_address_counts_and_the_silent_only_while_nobody_else_speaks() {
        let state =
            |ip: &str| BalancerState { addresses: ip.parse().into_iter().collect(), ..BalancerState::default() };
        let site = |instance: &str, silent: bool, stated: &[(&str, &str)]| Site {
            instance: instance.into(),
            kind: "gateway".into(),
            silent,
            balancers: stated.iter().map(|(name, ip)| ((*name).to_owned(), state(ip))).collect(),
            ..Site::default()
        };
        for (case, sites, expected) in [
            (
                "one",
                vec![site("a", false, &[("eu/shop/web", "10.0.0.1"), ("/shop/own", "10.0.0.2")])],
                "eu shop/web 10.0.0.1",
            ),
            (
                "the second has it",
                vec![site("a", false, &[("eu/shop/web", "")]), site("b", false, &[("eu/shop/web", "10.0.0.1")])],
                "eu shop/web 10.0.0.1",
            ),
            (
                "silent",
                vec![site("a", true, &[("eu/shop/web", "10.0.0.1")]), site("b", false, &[("eu/shop/web", "10.0.0.9")])],
                "eu shop/web 10.0.0.9",
            ),
            (
                "all silent",
                vec![site("a", true, &[("eu/shop/web", "10.0.0.1")]), site("b", false, &[])],
                "eu shop/web 10.0.0.1",
            ),
            (
                "a balancer of others",
                vec![
                    site("a", false, &[("eu/shop/web", "10.0.0.1")]),
                    Site { provided: [("eu/shop/db".to_owned(), state("192.0.2.1"))].into(), ..site("b", false, &[]) },
                ],
                "eu shop/db 192.0.2.1, eu shop/web 10.0.0.1",
            ),
            ("nobody", vec![], ""),
        ] {
            let all = stated(&sites);
            let said = all.iter().flat_map(|(cluster, services)| {
                services.iter().map(move |(service, state)| {
                    let ips: Vec<String> = state.addresses.iter().map(ToString::to_string).collect();
                    format!("{cluster} {service} {}", ips.join(" "))
                })
            });
            assert_eq!(said.collect::<Vec<_>>().join(", "), expected, "{case}");
        }
    }
}
