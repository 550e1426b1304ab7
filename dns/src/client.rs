//! Who asks: one look-up by source address, before anything else. Pure.
//!
//! In: the members' ranges and node addresses, the operator's ranges, where this replica stands. Out: [`Asker`]. The longest prefix
//! counts; at the same prefix the operator's word comes before the topology's. Loopback and addresses that nothing is known of stand
//! where this replica stands.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use atoll_api::routing;
use atoll_api::topology::{Standing, Topology};
use ipnet::IpNet;

use crate::config::Config;
use crate::prefixes::Prefixes;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asker {
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
    /// The same for neighbours.
    pub(crate) client: u64,
    /// By which word it was placed.
    pub(crate) by: String,
}

impl Asker {
    /// As routing wants it.
    pub(crate) fn route<'a>(&'a self, topology: &'a Topology, dice: u64) -> routing::Asker<'a> {
        let own = self.cluster.as_deref().and_then(|c| topology.clusters.get(c));
        routing::Asker {
            cluster: self.cluster.as_deref(),
            set: &self.set,
            region: self.region.as_deref(),
            zone: self.zone.as_deref(),
            location: own.and_then(|c| c.spec.location.as_ref()?.degrees()),
            rtt: self.region.as_deref().and_then(|region| topology.rtt.get(region)).map(std::sync::Arc::as_ref),
            client: self.client,
            dice,
        }
    }
}

/// Everybody's place, by address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients {
    members: Prefixes<String>,
    written: Prefixes<Standing>,
    recursion: Prefixes<()>,
    /// Who may ask at all; nobody in it: everybody.
    allowed: Option<Prefixes<()>>,
    own: Standing,
}

impl Clients {
    /// Out of the topology and the configuration. Ranges that don't parse are left out: the hub reports them.
    pub(crate) fn new(topology: &Topology, config: &Config) -> Self {
        let mut clients = Self { own: config.standing.clone(), ..Self::default() };
        for (name, cluster) in &topology.clusters {
            let ranges =
                cluster.cidrs.pods.iter().chain(&cluster.cidrs.services).filter_map(|c| c.parse::<IpNet>().ok());
            for net in ranges.chain(cluster.nodes.iter().map(|ip| IpNet::from(ip.to_canonical()))) {
                clients.members.insert(net, name.as_str().to_owned());
            }
        }
        for (net, standing) in &config.clients {
            clients.written.insert(*net, standing.clone());
        }
        for net in &config.recursion {
            clients.recursion.insert(*net, ());
        }
        for net in &config.allow {
            clients.allowed.get_or_insert_default().insert(*net, ());
        }
        clients
    }

    /// Who asks from `ip`.
    pub(crate) fn asker(&self, topology: &Topology, ip: IpAddr) -> Asker {
        let ip = ip.to_canonical();
        let member = self.members.find(ip);
        let written = self.written.find(ip).and_then(|(net, s)| Some((net, s.last()?)));
        let longer = |net: &IpNet| member.as_ref().is_none_or(|(other, _)| net.prefix_len() >= other.prefix_len());
        let (standing, by) = match (written, &member) {
            (Some((net, standing)), _) if longer(&net) => (standing.clone(), format!("configured range {net}")),
            // Ranges that overlap say nothing about who asks from them.
            (_, Some((net, names))) if names.iter().all(|n| *n == names[0]) => {
                let standing = Standing { cluster: names.first().cloned(), ..Standing::default() };
                (standing, format!("range {net} of cluster {}", names[0]))
            }
            _ => (self.own.clone(), "where this replica stands".to_owned()),
        };
        let mut asker = place(topology, standing, by);
        asker.recursion = self.recursion.find(ip).is_some();
        asker.barred = self.allowed.as_ref().is_some_and(|allowed| allowed.find(ip).is_none());
        asker.spared = asker.recursion || member.is_some() || ip.is_loopback();
        asker.client = neighbourhood(ip);
        asker
    }

    /// An asker of `region`, for those who want to know what it would get.
    pub(crate) fn in_region(&self, topology: &Topology, region: &str) -> Asker {
        let standing = Standing {
            region: Some(region.to_owned()),
            cluster_set: self.own.cluster_set.clone(),
            ..Standing::default()
        };
        place(topology, standing, format!("region {region} as asked"))
    }
}

/// Fills in what a standing leaves open: from its member, else from the settings.
fn place(topology: &Topology, standing: Standing, by: String) -> Asker {
    let own = standing.cluster.as_deref().and_then(|c| topology.clusters.get(c));
    let set = standing.cluster_set.or_else(|| own.map(|c| c.set().to_owned()));
    Asker {
        set: set.unwrap_or_else(|| topology.settings.default_set.clone()),
        region: standing.region.or_else(|| own.and_then(|c| c.spec.region.clone())),
        zone: standing.zone.or_else(|| own.and_then(|c| c.spec.zone.clone())),
        cluster: standing.cluster,
        by,
        ..Asker::default()
    }
}

/// The /24 or /56 around an address: who moves inside it stays the same client.
fn neighbourhood(ip: IpAddr) -> u64 {
    let length = if ip.is_ipv4() { 24 } else { 56 };
    let net = IpNet::new(ip, length).map_or(ip, |net| net.network());
    let mut hasher = DefaultHasher::new();
    net.hash(&mut hasher);
    hasher.finish()
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
            let asker = |config| Clients::new(&topology, config).asker(&topology, ip.parse().unwrap());
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
        let clients = Clients::new(&topology, &config);
        for (ip, cluster, set, region, recursion) in [
            ("10.1.0.7", Some("prod-eu"), "prod", Some("eu-central"), false),
            ("10.1.200.7", None, "dev", Some("us-east"), false),
            ("10.9.1.1", Some("dev"), "dev", Some("eu-central"), false),
            ("172.16.0.2", Some("prod-us"), "prod", Some("us-east"), false),
            ("192.0.2.9", Some("prod-us"), "prod", Some("us-east"), true),
            ("127.0.0.1", None, "prod", Some("eu-central"), false),
            ("203.0.113.1", None, "prod", Some("eu-central"), false),
        ] {
            let asker = clients.asker(&topology, ip.parse().unwrap());
            assert_eq!(
                (asker.cluster.as_deref(), asker.set.as_str(), asker.region.as_deref(), asker.recursion),
                (cluster, set, region, recursion),
                "{ip}"
            );
        }
    }
}
