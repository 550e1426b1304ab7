//! DNS servers and gateways as they state themselves: where they stand, where they are reached, what they serve.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::BalancerState;

/// A DNS server or gateway replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Site {
    /// Unique among replicas; the same over its restarts.
    pub instance: String,
    /// `dns`, `gateway` or `hub`.
    pub kind: String,
    /// host:port where agents open their relay connections; none wanted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub relay: String,
    /// Where its users reach it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The member it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Its region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The cluster set that it serves; empty: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_set: Option<String>,
    /// The GatewayClasses that it is told to serve, sorted; empty: all of its controller.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The process's own addresses, where Services send what is for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub own: Vec<IpAddr>,
    /// The node that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The Gateways that it serves, by `namespace/name`; nothing before it serves, and where it is no gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateways: Option<BTreeMap<String, ServedGateway>>,
    /// The Services of type LoadBalancer that it serves or can't, by `cluster/namespace/name`; without a cluster those of the hub's API.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub balancers: BTreeMap<String, BalancerState>,
    /// Members' Services that balancers of others serve, which this replica tells; by `cluster/namespace/name`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub provided: BTreeMap<String, BalancerState>,
    /// The ACME challenges that it answers, by token.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub challenges: BTreeSet<String>,
    /// What is asked for there of limits that all gateways keep together: limit, key, requests in the last while. The busiest only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<(u64, u64, u32)>,
    /// It is about to end and wants nothing new; what it has it serves on. It says so itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The hub has not heard of it for longer than its lease, or it is leaving; the hub says so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
}

/// A Gateway as one replica serves it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServedGateway {
    /// The generation of the object that is served.
    pub generation: i64,
    /// And those of its ListenerSets, by `namespace/name`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, i64>,
    /// Addresses of its own; none: it shares the replica's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The hosts that it has something to say to: `*.` and a suffix means all below it, `*` everybody.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
    /// The cluster set that its routes reach.
    pub cluster_set: String,
}

impl Site {
    /// Where users of `set` (of any, where none is given) reach `host` here (in lower case, without the last dot): the addresses of the
    /// Gateways that mean it most exactly, where some have addresses of their own; else the replica's. One that is told which classes it
    /// serves is reached by the hosts of those alone.
    pub fn reached_at<'a>(&'a self, host: &str, set: Option<&str>) -> impl Iterator<Item = &'a str> + use<'a> {
        let served = self.gateways.iter().flatten().map(|(_, g)| g);
        let meant = served.filter(|g| set.is_none_or(|set| g.cluster_set == set));
        let ranked: Vec<(usize, &ServedGateway)> = meant.filter_map(|g| Some((g.means(host)?, g))).collect();
        let best = ranked.iter().map(|(rank, _)| *rank).max();
        let meant: Vec<&ServedGateway> =
            ranked.into_iter().filter(|(rank, _)| Some(*rank) == best).map(|(_, g)| g).collect();
        let shares = (meant.is_empty() && self.classes.is_empty()) || meant.iter().any(|g| g.addresses.is_empty());
        let own = meant.into_iter().flat_map(|g| &g.addresses);
        own.chain(self.addresses.iter().filter(move |_| shares)).map(String::as_str)
    }

    /// Everything but what says nothing of where anybody is reached.
    pub fn same_place(&self, other: &Self) -> bool {
        let Self {
            instance,
            kind,
            relay,
            addresses,
            cluster,
            region,
            zone,
            cluster_set,
            classes,
            own,
            node,
            gateways,
            balancers,
            provided,
            challenges: _,
            asked: _,
            leaving,
            silent,
        } = self;
        let places = |all: &'_ Option<BTreeMap<String, ServedGateway>>| -> Vec<(String, ServedGateway)> {
            let place = |(name, g): (&String, &ServedGateway)| {
                (name.clone(), ServedGateway { generation: 0, sets: BTreeMap::new(), ..g.clone() })
            };
            all.iter().flatten().map(place).collect()
        };
        let theirs = (&other.instance, &other.kind, &other.relay, &other.addresses, &other.cluster);
        (instance, kind, relay, addresses, cluster) == theirs
            && (region, zone, cluster_set) == (&other.region, &other.zone, &other.cluster_set)
            && (leaving, silent) == (&other.leaving, &other.silent)
            && (classes, own, node, balancers) == (&other.classes, &other.own, &other.node, &other.balancers)
            && *provided == other.provided
            && (*gateways == other.gateways || places(gateways) == places(&other.gateways))
    }
}

impl ServedGateway {
    /// How exactly it means `host`: the longer the name, the more; the name itself before all below a suffix.
    fn means(&self, host: &str) -> Option<usize> {
        if self.hosts.contains(host) {
            return Some(usize::MAX);
        }
        let above = std::iter::successors(host.split_once('.'), |(_, rest)| rest.split_once('.')).map(|(_, rest)| rest);
        let below = above.into_iter().find(|suffix| self.hosts.contains(&format!("*.{suffix}")));
        below.map(str::len).or_else(|| self.hosts.contains("*").then_some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_reached_where_the_gateway_is_that_means_it_most_exactly() {
        let gateway = |address: &[&str], hosts: &[&str], set: &str| ServedGateway {
            addresses: address.iter().map(|a| (*a).to_owned()).collect(),
            hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
            cluster_set: set.to_owned(),
            ..ServedGateway::default()
        };
        let site = Site {
            addresses: vec!["192.0.2.1".into()],
            gateways: Some(
                [
                    ("a/exact", gateway(&["10.0.0.1"], &["shop.example.com"], "prod")),
                    ("a/below", gateway(&["10.0.0.2", "fd00::2"], &["*.example.com"], "prod")),
                    ("a/deep", gateway(&["10.0.0.3"], &["*.shop.example.com"], "prod")),
                    ("a/any", gateway(&["10.0.0.4"], &["*"], "dev")),
                    ("a/shared", gateway(&[], &["old.example.com"], "prod")),
                ]
                .map(|(name, served)| (name.to_owned(), served))
                .into(),
            ),
            ..Site::default()
        };
        for (host, set, expected) in [
            ("shop.example.com", "prod", "10.0.0.1"),
            ("blog.example.com", "prod", "10.0.0.2 fd00::2"),
            ("a.b.example.com", "prod", "10.0.0.2 fd00::2"),
            ("x.shop.example.com", "prod", "10.0.0.3"),
            ("old.example.com", "prod", "192.0.2.1"),
            ("example.com", "prod", "192.0.2.1"),
            ("other.test", "prod", "192.0.2.1"),
            ("shop.example.com", "dev", "10.0.0.4"),
            ("shop.example.com", "lab", "192.0.2.1"),
        ] {
            let found: Vec<&str> = site.reached_at(host, Some(set)).collect();
            assert_eq!(found.join(" "), expected, "{host} in {set}");
        }
        let fleet = Site { classes: vec!["internal".into()], ..site };
        for (host, expected) in
            [("blog.example.com", "10.0.0.2 fd00::2"), ("old.example.com", "192.0.2.1"), ("other.test", "")]
        {
            let found: Vec<&str> = fleet.reached_at(host, Some("prod")).collect();
            assert_eq!(found.join(" "), expected, "{host} at a fleet: another one serves what it does not mean");
        }
    }

    #[test]
    fn a_generation_moves_nobody_and_an_address_does() {
        let served = ServedGateway { generation: 1, addresses: vec!["10.0.0.1".into()], ..ServedGateway::default() };
        let site = |g: ServedGateway| Site { gateways: Some([("a/b".to_owned(), g)].into()), ..Site::default() };
        let one = site(served.clone());
        assert!(one.same_place(&site(ServedGateway { generation: 2, ..served.clone() })));
        assert!(!one.same_place(&site(ServedGateway { addresses: Vec::new(), ..served })));
        assert!(!one.same_place(&Site { silent: true, ..one.clone() }));
    }
}
