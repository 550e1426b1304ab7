//! Who asks: one look-up by source address, before anything else. Pure.
//!
//! In: the members' ranges and node addresses, the operator's ranges, where this replica stands. Out: [`Asker`], one for all who stand
//! alike, with a number that no other standing has or will have. The longest prefix counts; at the same prefix the operator's word comes
//! before the topology's. Loopback and addresses that nothing is known of stand where this replica stands.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::routing;
use atoll_api::topology::{Standing, Topology};
use ipnet::IpNet;

use crate::config::Config;
use crate::prefixes::Prefixes;

/// Who asks: everybody who stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    /// The number of this standing; 0: none, so that nothing is kept for it.
    pub(crate) id: u32,
    /// The member it stands in.
    pub(crate) cluster: Option<String>,
    /// The cluster set whose services it sees.
    pub(crate) set: String,
    pub(crate) region: Option<String>,
    pub(crate) zone: Option<String>,
    /// Whether names that are not ours are looked up for it.
    pub(crate) recursion: bool,
    /// Whether it may not ask at all.
    pub(crate) barred: bool,
    /// Whether its replies are never limited: loopback, members, those who may recurse.
    pub(crate) spared: bool,
}

impl Asker {
    /// As routing wants it; `client` is the same for neighbours.
    pub(crate) fn route<'a>(&'a self, topology: &'a Topology, client: u64, dice: u64) -> routing::Asker<'a> {
        let own = self.cluster.as_deref().and_then(|c| topology.clusters.get(c));
        routing::Asker {
            cluster: self.cluster.as_deref(),
            set: &self.set,
            region: self.region.as_deref(),
            zone: self.zone.as_deref(),
            location: own.and_then(|c| c.spec.location.as_ref()?.degrees()),
            rtt: self.region.as_deref().and_then(|region| topology.rtt.get(region)).map(Arc::as_ref),
            client,
            dice,
        }
    }
}

/// A standing in every way of being served: may recurse (1), is barred (2), is spared (4). Recursion makes it another number.
type Ways = [Arc<Asker>; 8];

/// Everybody's place, by address.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Clients {
    members: Prefixes<usize>,
    written: Prefixes<usize>,
    recursion: Prefixes<()>,
    /// Who may ask at all; nobody in it: everybody.
    allowed: Option<Prefixes<()>>,
    /// The standings that ranges point to; the first is this replica's.
    standings: Vec<Ways>,
    /// Set and standing of who asks as if from a region.
    own: Standing,
    /// Numbers in use, by standing with the number 0.
    ids: HashMap<Asker, u32>,
    /// The highest number that was ever in use.
    last: u32,
}

impl Clients {
    /// Out of the topology and the configuration; standings that `before` had keep their numbers. Ranges that don't parse are left out:
    /// the hub reports them.
    pub(crate) fn new(topology: &Topology, config: &Config, before: Option<&Self>) -> Self {
        let mut clients = Self { own: config.standing.clone(), last: before.map_or(0, |b| b.last), ..Self::default() };
        clients.standing(place(topology, config.standing.clone()), before);
        for (name, cluster) in &topology.clusters {
            let standing = Standing { cluster: Some(name.as_str().to_owned()), ..Standing::default() };
            let at = clients.standing(place(topology, standing), before);
            let ranges =
                cluster.cidrs.pods.iter().chain(&cluster.cidrs.services).filter_map(|c| c.parse::<IpNet>().ok());
            for net in ranges.chain(cluster.nodes.iter().map(|ip| IpNet::from(ip.to_canonical()))) {
                clients.members.insert(net, at);
            }
        }
        for (net, standing) in &config.clients {
            let at = clients.standing(place(topology, standing.clone()), before);
            clients.written.insert(*net, at);
        }
        for net in &config.recursion {
            clients.recursion.insert(*net, ());
        }
        for net in &config.allow {
            clients.allowed.get_or_insert_default().insert(*net, ());
        }
        clients
    }

    /// Who asks from `ip`. Takes nothing but look-ups.
    pub(crate) fn asker(&self, ip: IpAddr) -> Arc<Asker> {
        let ip = ip.to_canonical();
        let (at, _) = self.find(ip);
        let recursion = self.recursion.find(ip).is_some();
        let barred = self.allowed.as_ref().is_some_and(|allowed| allowed.find(ip).is_none());
        let spared = recursion || ip.is_loopback() || self.members.find(ip).is_some();
        let way = usize::from(recursion) | usize::from(barred) << 1 | usize::from(spared) << 2;
        self.standings.get(at).map(|ways| Arc::clone(&ways[way])).unwrap_or_default()
    }

    /// By which word `ip` stands where it stands, for people.
    pub(crate) fn why(&self, ip: IpAddr) -> String {
        match self.find(ip.to_canonical()) {
            (_, Some((net, true))) => format!("configured range {net}"),
            (at, Some((net, false))) => {
                let cluster = self.standings.get(at).and_then(|ways| ways[0].cluster.as_deref());
                format!("range {net} of cluster {}", cluster.unwrap_or_default())
            }
            (_, None) => "where this replica stands".to_owned(),
        }
    }

    /// An asker of `region`, for those who want to know what it would get.
    pub(crate) fn in_region(&self, topology: &Topology, region: &str) -> Asker {
        let standing = Standing {
            region: Some(region.to_owned()),
            cluster_set: self.own.cluster_set.clone(),
            ..Standing::default()
        };
        place(topology, standing)
    }

    /// Which standing, and the range that says so, and whether the operator wrote it.
    fn find(&self, ip: IpAddr) -> (usize, Option<(IpNet, bool)>) {
        let member = self.members.find(ip);
        let written = self.written.find(ip).and_then(|(net, s)| Some((net, *s.last()?)));
        let longer = |net: &IpNet| member.as_ref().is_none_or(|(other, _)| net.prefix_len() >= other.prefix_len());
        match (written, &member) {
            (Some((net, at)), _) if longer(&net) => (at, Some((net, true))),
            // Ranges that overlap say nothing about who asks from them.
            (_, Some((net, all))) if all.iter().all(|at| *at == all[0]) => (all[0], Some((*net, false))),
            _ => (0, None),
        }
    }

    /// The place of a standing among those that are known, under its number.
    fn standing(&mut self, asker: Asker, before: Option<&Self>) -> usize {
        let ids = [false, true].map(|recursion| {
            let asker = Asker { recursion, ..asker.clone() };
            let known = self.ids.get(&asker).or_else(|| before?.ids.get(&asker)).copied();
            let id = known.unwrap_or_else(|| {
                self.last += 1;
                self.last
            });
            self.ids.insert(asker, id);
            id
        });
        self.standings.push(std::array::from_fn(|way| {
            let (recursion, barred, spared) = (way & 1 != 0, way & 2 != 0, way & 4 != 0);
            Arc::new(Asker { id: ids[way & 1], recursion, barred, spared, ..asker.clone() })
        }));
        self.standings.len() - 1
    }
}

/// Fills in what a standing leaves open: from its member, else from the settings.
fn place(topology: &Topology, standing: Standing) -> Asker {
    let own = standing.cluster.as_deref().and_then(|c| topology.clusters.get(c));
    let set = standing.cluster_set.or_else(|| own.map(|c| c.set().to_owned()));
    Asker {
        set: set.unwrap_or_else(|| topology.settings.default_set.clone()),
        region: standing.region.or_else(|| own.and_then(|c| c.spec.region.clone())),
        zone: standing.zone.or_else(|| own.and_then(|c| c.spec.zone.clone())),
        cluster: standing.cluster,
        ..Asker::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topology;

    #[test]
    fn an_address_may_ask_or_not_and_is_limited_or_not() {
        let ranges = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let everybody = Config { recursion: ranges(&["192.0.2.0/24"]), ..Config::default() };
        let few = Config { allow: ranges(&["10.0.0.0/8", "2001:db8::/32"]), ..everybody.clone() };
        let topology = topology();
        for (ip, barred, spared) in [
            ("127.0.0.1", true, true),
            ("::1", true, true),
            ("10.1.0.7", false, true),
            ("172.16.0.2", true, true),
            ("192.0.2.9", true, true),
            ("10.77.0.1", false, false),
            ("2001:db8::1", false, false),
            ("203.0.113.1", true, false),
        ] {
            let asker = |config| Clients::new(&topology, config, None).asker(ip.parse().unwrap());
            assert_eq!((asker(&few).barred, asker(&few).spared), (barred, spared), "{ip}");
            assert_eq!((asker(&everybody).barred, asker(&everybody).spared), (false, spared), "{ip} where all may ask");
        }
    }

    #[test]
    fn the_source_address_says_who_asks() {
        let standing = |cluster: &str, region: &str, set: &str| {
            let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
            Standing { cluster: some(cluster), region: some(region), zone: None, cluster_set: some(set) }
        };
        let config = Config {
            standing: standing("", "eu-central", ""),
            clients: vec![
                ("10.1.128.0/17".parse().unwrap(), standing("", "us-east", "dev")),
                ("192.0.2.0/24".parse().unwrap(), standing("prod-us", "", "")),
            ],
            recursion: vec!["192.0.2.0/24".parse().unwrap()],
            ..Config::default()
        };
        let topology = topology();
        let clients = Clients::new(&topology, &config, None);
        for (ip, cluster, set, region, recursion) in [
            ("10.1.0.7", Some("prod-eu"), "prod", Some("eu-central"), false),
            ("10.1.200.7", None, "dev", Some("us-east"), false),
            ("10.9.1.1", Some("dev"), "dev", Some("eu-central"), false),
            ("172.16.0.2", Some("prod-us"), "prod", Some("us-east"), false),
            ("192.0.2.9", Some("prod-us"), "prod", Some("us-east"), true),
            ("127.0.0.1", None, "prod", Some("eu-central"), false),
            ("203.0.113.1", None, "prod", Some("eu-central"), false),
        ] {
            let asker = clients.asker(ip.parse().unwrap());
            assert_eq!(
                (asker.cluster.as_deref(), asker.set.as_str(), asker.region.as_deref(), asker.recursion),
                (cluster, set, region, recursion),
                "{ip}"
            );
        }
    }

    #[test]
    fn who_stands_alike_has_one_number_and_keeps_it() {
        let topology = topology();
        let config = |recursion: &[&str]| Config {
            recursion: recursion.iter().map(|r| r.parse().unwrap()).collect(),
            ..Config::default()
        };
        let first = Clients::new(&topology, &config(&[]), None);
        let id = |clients: &Clients, ip: &str| clients.asker(ip.parse().unwrap()).id;
        assert_eq!(id(&first, "10.1.0.7"), id(&first, "10.1.64.9"));
        let numbers = ["10.1.0.7", "10.2.0.7", "192.0.2.1"].map(|ip| id(&first, ip));
        assert!(numbers.iter().all(|n| *n > 0) && numbers[0] != numbers[1] && numbers[1] != numbers[2]);
        let mut later = topology.clone();
        let mut moved = atoll_api::topology::ClusterFacts::clone(&later.clusters["prod-eu"]);
        moved.spec.region = Some("us-west".into());
        later.clusters.insert("prod-eu".parse().unwrap(), Arc::new(moved));
        let second = Clients::new(&later, &config(&["10.2.0.0/24"]), Some(&first));
        assert_ne!(id(&second, "10.1.0.7"), numbers[0], "it stands elsewhere now");
        assert_eq!(id(&second, "192.0.2.1"), numbers[2]);
        assert_ne!(id(&second, "10.2.0.7"), numbers[1], "names that are not ours are looked up for it now");
        assert_eq!(id(&second, "10.2.1.7"), numbers[1]);
        assert!(first == Clients::new(&topology, &config(&[]), Some(&first)) && first != second);
    }
}
