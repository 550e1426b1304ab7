//! What every request reads: the table as it is now, and what lives longer than a table.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::acme::Answers;
use crate::balance::Dice;
use crate::balancer::Affinities;
use crate::choose::{Clients, Remembered, Rooms};
use crate::config::Limits;
use crate::endpoint::{Endpoints, Live};
use crate::health::Health;
use crate::http3::Heard;
use crate::listen::PerClient;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::pods::Pods;
use crate::policy::shares::Shares;
use crate::policy::{self, Trusted};
use crate::pool::Pool;
use crate::retry::Budget;
use crate::table::Table;
use crate::traces::Traces;
use crate::views::Connections;

/// The table with live endpoints. A request keeps the one that it began with.
pub(crate) struct Snapshot {
    pub(crate) table: Table,
    /// In the order of the table's upstreams.
    pub(crate) live: Vec<Arc<Live>>,
    /// The same order.
    pub(crate) remembered: Vec<Arc<Remembered>>,
    /// Whether it was built from the last good objects only.
    pub(crate) last_good: bool,
}

/// The newest snapshot; nothing before the first.
pub(crate) type Snapshots = Arc<ArcSwapOption<Snapshot>>;

/// Everything that serves.
pub(crate) struct Plane {
    pub(crate) snapshots: Snapshots,
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) health: Arc<Health>,
    pub(crate) pool: Pool,
    pub(crate) clients: Clients,
    pub(crate) dice: Dice,
    pub(crate) budget: Budget,
    pub(crate) limits: Limits,
    /// Whose word on clients counts.
    pub(crate) trusted: Trusted,
    /// Whose connections begin with a PROXY protocol header.
    pub(crate) proxies: Vec<IpNet>,
    /// What filters are given by policies; nothing before they are known.
    pub(crate) policies: policy::Newest,
    /// The limits that all replicas keep together.
    pub(crate) shares: Shares,
    /// Which endpoints clients of Services with ClientIP affinity were sent to.
    pub(crate) affinities: Affinities,
    /// How full the clusters are that policies bound.
    pub(crate) rooms: Rooms,
    /// How TLS is spoken to servers that are none of ours.
    pub(crate) outside: Arc<rustls::ClientConfig>,
    pub(crate) metrics: Metrics,
    /// The access log; nothing where there is none.
    pub(crate) access: Option<Access>,
    /// Where traces go; nothing where they go nowhere.
    pub(crate) traces: Option<Traces>,
    /// Connections of clients that are open.
    pub(crate) connections: Arc<Connections>,
    /// How many each client has.
    pub(crate) per_client: Arc<PerClient>,
    /// What it was told at its start, for people.
    pub(crate) told: serde_json::Value,
    /// Copies for mirrors that may be under way at once.
    pub(crate) copies: Arc<Semaphore>,
    /// Connections of clients, their streams, and what they leave behind: tunnels, copies.
    pub(crate) tracker: TaskTracker,
    /// No new connections; those that are open finish what they do.
    pub(crate) drain: CancellationToken,
    /// What backends by name lead to.
    pub(crate) names: Arc<Names>,
    /// Labels of the hub's own pods.
    pub(crate) pods: Arc<Pods>,
    /// What CAs that look are answered.
    pub(crate) answers: Answers,
    /// Where HTTP/3 is served.
    pub(crate) http3: Heard,
    /// Whether there is a table.
    pub(crate) ready: watch::Sender<bool>,
    /// Everything ends now.
    pub(crate) end: CancellationToken,
}

impl Plane {
    /// Whether somebody's connections begin with a PROXY protocol header.
    pub(crate) fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|range| range.contains(&peer.to_canonical()))
    }

    /// Puts a new table in the place of the old one. What does not differ stays as it is.
    pub(crate) fn swap(&self, table: Table, last_good: bool) {
        let before = self.snapshots.load_full();
        let before = before.as_deref();
        let held = before.map_or((&[][..], &[][..]), |b| (&b.table.upstreams[..], &b.live[..]));
        let live = self.endpoints.enliven(&table.upstreams, held, &table.topology);
        // Choices among clusters depend on the topology too.
        let same = before.filter(|b| Arc::ptr_eq(&b.table.topology, &table.topology));
        let remembered = live.iter().enumerate().map(|(at, live)| {
            let known = same.filter(|b| b.live.get(at).is_some_and(|known| Arc::ptr_eq(known, live)));
            known.map_or_else(Arc::default, |b| Arc::clone(&b.remembered[at]))
        });
        let remembered = remembered.collect();
        self.metrics.last_good.set(last_good.into());
        self.snapshots.store(Some(Arc::new(Snapshot { table, live, remembered, last_good })));
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }
}
