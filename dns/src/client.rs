//! Who asks: one look-up before anything else, by source address, listener, key, and the network that a trusted forwarder names. Pure.
//!
//! ```text
//!   source, listener, key ── view (cluster set, zones), may recurse, may ask ─┐
//!   ECS of an allowed forwarder, else the source                               ├─► Asker, one for all who stand alike
//!     ── longest range (members, written, map file) ── database ── nobody: where this replica stands ─┘
//! ```
//!
//! In: the members' ranges and node addresses, the operator's ranges and views, what files say, where this replica stands. Out: [`Asker`],
//! with a number that no other standing has or will have. The longest prefix counts; at the same prefix the operator's word comes before
//! the map file's, and that before the topology's. Whose services somebody sees is decided by the source, never by what a forwarder says
//! of its client: ECS moves an asker over the map, not into another cluster set. Source of scopes: RFC 7871 §7.2.1.
//! [`standings`] makes all of it.

mod standings;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_api::names::ClusterName;
use atoll_api::routing::{self, distance_km};
use atoll_api::topology::{Standing, Topology};
use hickory_proto::rr::Name;
use ipnet::IpNet;

use crate::geo::ecs::{Echo, Malformed, Subnet};
use crate::geo::{Borders, Geo, Spot};
use crate::prefixes::Prefixes;
use crate::view::is_internal;

/// Where a query comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) ip: IpAddr,
    /// The transport's row.
    pub(crate) listener: &'a str,
    /// The key that signed it (TSIG).
    pub(crate) key: Option<&'a Name>,
}

/// Who asks: everybody who stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    /// The number of this standing; 0: none, so that nothing is kept for it.
    pub(crate) id: u32,
    /// What it sees, by the number of a view in the configuration; `None`: it is in no view.
    pub(crate) view: Option<u16>,
    /// The member it stands in.
    pub(crate) cluster: Option<String>,
    /// The cluster set whose services it sees.
    pub(crate) set: String,
    pub(crate) region: Option<String>,
    pub(crate) zone: Option<String>,
    /// The member that is nearest, where a database says on which spot of the earth it is.
    pub(crate) near: Option<ClusterName>,
    /// Whether it comes from outside: nobody is known at its address, and addresses inside mean nothing there.
    pub(crate) outside: bool,
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
        let stands = self.cluster.as_deref().or(self.near.as_ref().map(ClusterName::as_str));
        let own = stands.and_then(|c| topology.clusters.get(c));
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

/// A standing in every way of being served, for each view and none: may recurse (1), is barred (2), is spared (4), is outside (8).
type Ways = Arc<[Arc<Asker>]>;
const WAYS: usize = 16;

/// By which word somebody stands where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A range of the configuration or the map file.
    Written(IpNet),
    /// A range of a member.
    Member(IpNet),
    /// The database, of a range of this length.
    Database(u8),
    /// Nobody's; the database said nothing of a range of this length.
    Nobody(u8),
    /// Everybody's who asks a node-local DNS.
    Home,
}

/// Who asks, and what its reply says of it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) asker: Arc<Asker>,
    /// The client's own network, or its forwarder's address.
    pub(crate) client: IpAddr,
    /// For how wide a network the answer is good, where a forwarder's word counts.
    pub(crate) echo: Option<Echo>,
}

/// An asker, and for how wide a network the same is said.
struct Located {
    asker: Arc<Asker>,
    client: IpAddr,
    scope: u8,
}

/// Everybody's place, by address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clients {
    members: Prefixes<usize>,
    written: Prefixes<usize>,
    recursion: Prefixes<()>,
    /// Who may ask at all; nobody in it: everybody.
    allowed: Option<Prefixes<()>>,
    /// Whose word on their clients' networks counts.
    forwarders: Prefixes<()>,
    views: Arc<[crate::config::View]>,
    /// The standings that ranges point to; the first is this replica's.
    standings: Vec<Ways>,
    /// Where each standing is, by itself without number and ways.
    index: HashMap<Asker, usize>,
    /// Members that a database's spots are measured from, and who stands near them.
    spots: Vec<(Option<(f64, f64)>, usize)>,
    borders: Borders,
    /// Whether some answer depends on the client itself.
    sticky: bool,
    geo: Geo,
    /// Set and standing of who asks as if from a region.
    own: Standing,
    /// Everybody stands where this replica does.
    home: bool,
    /// The highest number that was ever in use.
    last: u32,
}

impl PartialEq for Clients {
    fn eq(&self, other: &Self) -> bool {
        self.geo.is_same(&other.geo)
            && self.sticky == other.sticky
            && self.standings == other.standings
            && (&self.members, &self.written, &self.spots) == (&other.members, &other.written, &other.spots)
            && (&self.recursion, &self.allowed, &self.forwarders)
                == (&other.recursion, &other.allowed, &other.forwarders)
    }
}

impl Clients {
    /// What files say.
    pub(crate) fn geo(&self) -> &Geo {
        &self.geo
    }

    /// Who asks from `ip`, whichever way. Takes nothing but look-ups.
    pub(crate) fn asker(&self, ip: IpAddr) -> Arc<Asker> {
        self.who(&Origin { ip, listener: "", key: None })
    }

    /// Who asks. Takes nothing but look-ups.
    pub(crate) fn who(&self, origin: &Origin<'_>) -> Arc<Asker> {
        let ip = origin.ip.to_canonical();
        let (at, word) = self.find(ip);
        self.way(at, origin, is_outside(ip, word))
    }

    /// Who asks by way of a forwarder that names its client's network.
    fn located(&self, origin: &Origin<'_>, client: IpNet) -> Located {
        let ip = client.network().to_canonical();
        let (source, _) = self.find(origin.ip.to_canonical());
        let (at, word) = self.find(ip);
        let (said, matched) = (self.base(at), word.len());
        let own = self.base(source);
        // The source's set is the set; where the client's would be another, it keeps its place on the map alone.
        let moved =
            if said.set == own.set { Some(at) } else { self.index.get(&standings::regional(said, &own.set)).copied() };
        let asker = self.way(moved.unwrap_or(source), origin, is_outside(ip, word));
        Located { asker, client: ip, scope: self.borders.scope(ip, matched) }
    }

    /// Who asks, with the option of its query that names a network.
    ///
    /// # Errors
    /// When the option breaks a rule; whose word it is does not matter then.
    pub(crate) fn seen(&self, origin: &Origin<'_>, subnet: Option<&[u8]>) -> Result<Seen, Malformed> {
        let own = || Seen { asker: self.who(origin), client: origin.ip, echo: None };
        let Some(subnet) = subnet.map(Subnet::read).transpose()? else { return Ok(own()) };
        // What others say of their clients is passed over, as if it was not there (RFC 7871 §7.2.2).
        if self.forwarders.find(origin.ip).is_none() {
            return Ok(own());
        }
        let Some(net) = subnet.network() else { return Ok(Seen { echo: Some(subnet.reply(0)), ..own() }) };
        let Located { asker, client, scope } = self.located(origin, net);
        let narrow = if client.is_ipv4() { 24 } else { 56 };
        let scope = if self.sticky { scope.max(narrow.min(net.prefix_len())) } else { scope };
        Ok(Seen { asker, client, echo: Some(subnet.reply(scope)) })
    }

    /// By which word `ip` stands where it stands, for people.
    pub(crate) fn why(&self, ip: IpAddr) -> String {
        let (at, word) = self.find(ip.to_canonical());
        let base = self.base(at);
        let name = |n: &Option<String>| n.clone().unwrap_or_default();
        match word {
            Word::Written(net) => format!("configured range {net}"),
            Word::Member(net) => format!("range {net} of cluster {}", name(&base.cluster)),
            Word::Database(_) => format!(
                "the database: nearest to {}",
                base.near.as_ref().map_or_else(|| name(&base.region), ToString::to_string)
            ),
            Word::Nobody(_) | Word::Home => "where this replica stands".to_owned(),
        }
    }

    /// An asker of `region`, for those who want to know what it would get.
    pub(crate) fn in_region(&self, topology: &Topology, region: &str) -> Asker {
        let standing = Standing {
            region: Some(region.to_owned()),
            cluster_set: self.own.cluster_set.clone(),
            ..Standing::default()
        };
        standings::place(topology, standing)
    }

    /// The name of an asker's view.
    pub(crate) fn view(&self, asker: &Asker) -> Option<&crate::config::View> {
        self.views.get(usize::from(asker.view?))
    }

    /// Whether an asker sees the zone of that name: every zone, where its view names none.
    pub(crate) fn sees(&self, asker: &Asker, zone: &Name) -> bool {
        self.view(asker).is_none_or(|view| view.zones.is_empty() || view.zones.contains(zone))
    }

    /// Whether every asker sees the zone of that name.
    pub(crate) fn all_see(&self, zone: &Name) -> bool {
        self.views.iter().all(|view| view.zones.is_empty() || view.zones.contains(zone))
    }

    fn base(&self, at: usize) -> &Asker {
        &self.standings[at][0]
    }

    /// The asker of a standing, as its origin has it served.
    fn way(&self, at: usize, origin: &Origin<'_>, outside: bool) -> Arc<Asker> {
        let ip = origin.ip.to_canonical();
        let recursion = self.recursion.find(ip).is_some();
        let barred = self.allowed.as_ref().is_some_and(|allowed| allowed.find(ip).is_none());
        let spared = recursion || ip.is_loopback() || self.members.find(ip).is_some();
        let way =
            usize::from(recursion) | usize::from(barred) << 1 | usize::from(spared) << 2 | usize::from(outside) << 3;
        let view = self.views.iter().position(|view| view.takes(ip, origin)).map_or(0, |view| view + 1);
        self.standings.get(at).map(|ways| Arc::clone(&ways[view * WAYS + way])).unwrap_or_default()
    }

    /// Which standing, and by which word.
    fn find(&self, ip: IpAddr) -> (usize, Word) {
        if self.home {
            return (0, Word::Home);
        }
        let member = self.members.find(ip);
        let written = self.written.find(ip).and_then(|(net, s)| Some((net, *s.last()?)));
        let longer = |net: &IpNet| member.as_ref().is_none_or(|(other, _)| net.prefix_len() >= other.prefix_len());
        match (written, &member) {
            (Some((net, at)), _) if longer(&net) => (at, Word::Written(net)),
            // Ranges that overlap say nothing about who asks from them.
            (_, Some((net, all))) if all.iter().all(|at| *at == all[0]) => (all[0], Word::Member(*net)),
            _ if ip.is_loopback() => (0, Word::Nobody(0)),
            _ => self.spot(ip),
        }
    }

    /// Where the database says that `ip` is: at the member that is nearest.
    fn spot(&self, ip: IpAddr) -> (usize, Word) {
        let Some(mmdb) = &self.geo.mmdb else { return (0, Word::Nobody(0)) };
        let (spot, len) = mmdb.find(ip);
        let at = spot.and_then(|spot| match spot {
            Spot::Region(region) => {
                self.spots.iter().map(|(_, at)| *at).find(|at| self.base(*at).region.as_deref() == Some(&region))
            }
            Spot::At(latitude, longitude) => {
                let far = self
                    .spots
                    .iter()
                    .filter_map(|(there, at)| Some((distance_km((*there)?, (latitude, longitude)), *at)));
                far.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
            }
        });
        at.map_or((0, Word::Nobody(len)), |at| (at, Word::Database(len)))
    }
}

impl Word {
    /// The length of the range that it is said of.
    fn len(self) -> u8 {
        match self {
            Self::Written(net) | Self::Member(net) => net.prefix_len(),
            Self::Database(len) | Self::Nobody(len) => len,
            Self::Home => 0,
        }
    }
}

/// Nobody that we know is at `ip`, and it is on the internet.
fn is_outside(ip: IpAddr, word: Word) -> bool {
    matches!(word, Word::Database(_) | Word::Nobody(_)) && !is_internal(ip)
}

#[cfg(test)]
mod tests;
