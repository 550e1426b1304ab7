//! Which members can be reached directly: TCP connects to a few of their addresses, with hysteresis.
//!
//! In: per cluster what the spec wants, whether its ranges overlap with another's, and samples of its addresses. Out: a
//! table of routes, swapped whole. A refused connect counts as reached: somebody answered.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::starved::is_starved;
use crate::stream::Connect;

/// Addresses tried of each group in one round.
const SAMPLES_MAX: usize = 3;
/// Clusters probed at once.
const PARALLEL_MAX: usize = 32;
/// One connect.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Rounds in a row that must fail before a direct route is given up.
const FAILURES_TO_RELAY: u32 = 2;
/// Rounds in a row that must succeed before a relayed member is dialed directly again.
const SUCCESSES_TO_DIRECT: u32 = 3;

/// What a cluster's spec says about reaching it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Want {
    /// Directly where a probe says so.
    #[default]
    Auto,
    /// Directly, whatever the probe says.
    Direct,
    /// Through the agent only.
    Relay,
}

/// How a member is dialed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Straight to the address.
    Direct,
    /// Through its agent.
    Relay,
    /// Not probed yet: directly first, then through its agent.
    Unknown,
}

/// What is to be known about a cluster before it can be probed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The spec's word.
    pub want: Want,
    /// Its ranges overlap with another member's or our own: an address says nothing about whose it is.
    pub overlap: bool,
    /// Groups of addresses (DNS servers, endpoints). The member is direct when each group has one that answers.
    pub groups: Vec<Vec<SocketAddr>>,
}

/// The routes found, by cluster. Clones share one table.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    table: Arc<ArcSwap<HashMap<String, Route>>>,
}

impl Routes {
    /// How to dial a cluster. Takes no lock.
    #[must_use]
    pub fn of(&self, cluster: &str) -> Route {
        self.table.load().get(cluster).copied().unwrap_or(Route::Unknown)
    }

    /// All routes, in no order.
    #[must_use]
    pub fn all(&self) -> Arc<HashMap<String, Route>> {
        self.table.load_full()
    }

    /// Replaces the table, for those who know the routes from elsewhere.
    pub fn set(&self, routes: HashMap<String, Route>) {
        self.table.store(Arc::new(routes));
    }
}

/// Probes the members round by round.
pub struct Prober {
    connect: Arc<dyn Connect>,
    targets: watch::Receiver<Arc<HashMap<String, Target>>>,
    routes: Routes,
    interval: Duration,
    seen: HashMap<String, Seen>,
}

/// What the last rounds said about a cluster.
#[derive(Debug, Clone, Copy)]
struct Seen {
    route: Route,
    contrary: u32,
    /// The route is what it must be, whatever was found: once it need not, the first probe decides.
    forced: bool,
}

impl Prober {
    /// Probes `targets` each `interval` with `connect`, and publishes into `routes`.
    #[must_use]
    pub fn new(
        connect: Arc<dyn Connect>,
        targets: watch::Receiver<Arc<HashMap<String, Target>>>,
        routes: Routes,
        interval: Duration,
    ) -> Self {
        Self { connect, targets, routes, interval, seen: HashMap::new() }
    }

    /// Runs until `shutdown`. Changed targets are probed at once.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let targets = Arc::clone(&self.targets.borrow_and_update());
            tokio::select! {
                () = self.round(&targets) => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                // An owner that has gone changes nothing more; the last targets stay.
                Ok(()) = self.targets.changed() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn round(&mut self, targets: &HashMap<String, Target>) {
        let connect = &*self.connect;
        // Boxed: the compiler can't see that the closure's future is Send for every lifetime (rust-lang/rust#102211).
        let probes: Vec<BoxFuture<'_, (String, Option<bool>)>> =
            targets.iter().map(|(name, target)| probe_named(connect, name, target).boxed()).collect();
        let answers: Vec<(String, Option<bool>)> =
            futures::stream::iter(probes).buffer_unordered(PARALLEL_MAX).collect().await;
        self.seen.retain(|name, _| targets.contains_key(name));
        let mut routes = HashMap::with_capacity(targets.len());
        for (name, reached) in answers {
            let before = self.seen.get(&name).copied();
            let now = settle(&targets[&name], before, reached);
            routes.insert(name.clone(), now.route);
            self.seen.insert(name, now);
        }
        self.routes.set(routes);
    }
}

async fn probe_named(connect: &dyn Connect, name: &str, target: &Target) -> (String, Option<bool>) {
    (name.to_owned(), probe(connect, target).await)
}

/// Whether every group has an address that answers; nothing if there is nothing to try or no need to, or nothing can be opened here.
async fn probe(connect: &dyn Connect, target: &Target) -> Option<bool> {
    let groups: Vec<&Vec<SocketAddr>> = target.groups.iter().filter(|g| !g.is_empty()).collect();
    if target.want != Want::Auto || target.overlap || groups.is_empty() {
        return None;
    }
    for group in groups {
        let tries: Vec<BoxFuture<'_, bool>> =
            group.iter().take(SAMPLES_MAX).map(|addr| answers(connect, *addr).boxed()).collect();
        let mut tries = futures::stream::iter(tries).buffer_unordered(SAMPLES_MAX);
        let mut any = false;
        while let Some(answered) = tries.next().await {
            if answered {
                any = true;
                break;
            }
        }
        if !any {
            return Some(false).filter(|_| !is_starved());
        }
    }
    Some(true)
}

async fn answers(connect: &dyn Connect, addr: SocketAddr) -> bool {
    let host = addr.ip().to_string();
    let dial = connect.connect(&host, addr.port());
    match tokio::time::timeout(CONNECT_MAX, dial).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset),
        Err(_) => false,
    }
}

/// The route after one more round. Pure.
fn settle(target: &Target, before: Option<Seen>, reached: Option<bool>) -> Seen {
    let forced = match (target.want, target.overlap) {
        (Want::Direct, _) => Some(Route::Direct),
        (Want::Relay, _) | (Want::Auto, true) => Some(Route::Relay),
        (Want::Auto, false) => None,
    };
    if let Some(route) = forced {
        return Seen { route, contrary: 0, forced: true };
    }
    let free = |route, contrary| Seen { route, contrary, forced: false };
    let was = before.map_or(Route::Unknown, |seen| seen.route);
    let Some(reached) = reached else { return Seen { contrary: 0, ..before.unwrap_or(free(was, 0)) } };
    let found = if reached { Route::Direct } else { Route::Relay };
    if was == Route::Unknown || was == found || before.is_some_and(|seen| seen.forced) {
        return free(found, 0);
    }
    let contrary = before.map_or(0, |seen| seen.contrary) + 1;
    let enough = if reached { SUCCESSES_TO_DIRECT } else { FAILURES_TO_RELAY };
    if contrary >= enough { free(found, 0) } else { free(was, contrary) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_change_only_after_several_rounds_say_so() {
        let auto = Target::default();
        let mut seen = None;
        for (round, (reached, want)) in [
            (Some(true), Route::Direct),
            (Some(false), Route::Direct),
            (Some(true), Route::Direct),
            (Some(false), Route::Direct),
            (Some(false), Route::Relay),
            (None, Route::Relay),
            (Some(true), Route::Relay),
            (Some(true), Route::Relay),
            (Some(false), Route::Relay),
            (Some(true), Route::Relay),
            (Some(true), Route::Relay),
            (Some(true), Route::Direct),
        ]
        .into_iter()
        .enumerate()
        {
            let now = settle(&auto, seen, reached);
            assert_eq!(now.route, want, "round {round}");
            seen = Some(now);
        }
    }

    #[test]
    fn the_spec_and_overlaps_come_before_what_a_probe_says() {
        for (want, overlap, route) in [
            (Want::Direct, false, Route::Direct),
            (Want::Direct, true, Route::Direct),
            (Want::Relay, false, Route::Relay),
            (Want::Auto, true, Route::Relay),
        ] {
            let target = Target { want, overlap, groups: vec![] };
            assert_eq!(settle(&target, None, Some(route != Route::Direct)).route, route, "{want:?} {overlap}");
        }
    }

    #[test]
    fn when_an_overlap_ends_the_first_probe_decides() {
        let (alone, twin) = (Target::default(), Target { overlap: true, ..Target::default() });
        let forced = settle(&twin, Some(settle(&alone, None, Some(true))), None);
        assert_eq!(forced.route, Route::Relay);
        let unasked = settle(&alone, Some(forced), None);
        assert_eq!(unasked.route, Route::Relay, "nothing was found out yet");
        for (reached, route) in [(true, Route::Direct), (false, Route::Relay)] {
            assert_eq!(settle(&alone, Some(unasked), Some(reached)).route, route);
        }
    }

    #[tokio::test]
    async fn a_refused_connect_counts_as_reached_and_every_group_must_answer() {
        let system = crate::stream::System::default();
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        // RFC 5737 and the limited broadcast address: no TCP connect to it ever succeeds.
        let nowhere: SocketAddr = "255.255.255.255:9".parse().unwrap();
        for (groups, want) in [
            (vec![vec![closed]], Some(true)),
            (vec![vec![nowhere, closed]], Some(true)),
            (vec![vec![closed], vec![nowhere]], Some(false)),
            (vec![vec![closed], vec![]], Some(true)),
            (vec![], None),
        ] {
            let target = Target { groups: groups.clone(), ..Target::default() };
            assert_eq!(probe(&system, &target).await, want, "{groups:?}");
        }
    }
}
