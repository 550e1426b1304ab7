//! Our own probes of the members: what counts when the hub is silent, and what the hub is told.
//!
//! In: the members of the newest table. Out: a [`Probe`] for each, with hysteresis. A member is well when its DNS answers, or when its agent
//! opens streams for us: pods may serve while DNS is ill. Members that have neither are not probed; the hub's last word counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::health::{Probe, Rules, is_other};
use atoll_api::names::ClusterName;
use atoll_reach::{DialError, RelayError, Route};
use atoll_wire::follow::Report;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarder;
use crate::metrics::Metrics;
use crate::resolve::Shared;
use crate::table::Member;
use crate::view::Findings;
use crate::world::World;

/// Between two rounds. Three failed ones take a member out: 3 × 2 s and one answer's time are well within 15 s.
const EVERY: Duration = Duration::from_secs(2);
/// One probe.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// The way is measured in each so manieth round.
const MEASURED_EACH: u32 = 5;
/// Probes at once.
const PARALLEL_MAX: usize = 64;

/// The state of every probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Probes {
    /// Whether a member is well: what routing goes by.
    pub(crate) members: BTreeMap<ClusterName, Probe>,
    /// Whether its DNS answers: one that doesn't is not waited for.
    pub(crate) dns: BTreeMap<ClusterName, Probe>,
    /// Round-trip times in milliseconds, smoothed.
    pub(crate) rtt_ms: BTreeMap<ClusterName, u32>,
    /// What health checks take out, by our own word.
    pub(crate) own: Arc<Findings>,
    /// Those that were well once. A probe begins as up: that is no finding yet.
    answered: BTreeSet<ClusterName>,
}

impl Probes {
    /// With what health checks found.
    pub(crate) fn with(&self, own: Arc<Findings>) -> Self {
        Self { own, ..self.clone() }
    }

    /// What the hub is told: members found well or ill.
    fn findings(&self) -> BTreeMap<String, bool> {
        let found = self.members.iter().filter(|(name, probe)| !probe.up() || self.answered.contains(*name));
        found.map(|(name, probe)| (name.as_str().to_owned(), probe.up())).collect()
    }
}

/// What one round found of a member; `None` where there is nothing to tell it by.
struct Found {
    name: ClusterName,
    well: Option<bool>,
    dns: Option<bool>,
    /// How long one way there and back took, where it was measured.
    rtt: Option<Duration>,
}

/// Probes until `shutdown`, and tells `probes` and `report` what changed.
pub(crate) async fn run(
    resolver: Shared,
    metrics: Metrics,
    probes: watch::Sender<Arc<Probes>>,
    report: watch::Sender<Report>,
    shutdown: CancellationToken,
) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds = 0_u32;
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let measuring = rounds.is_multiple_of(MEASURED_EACH);
        rounds = rounds.wrapping_add(1);
        let members = probed(&resolver.world.load(), resolver.lookups.forwarder());
        let forwarder = resolver.lookups.forwarder();
        let Some(results) = shutdown.run_until_cancelled(round(forwarder, members, measuring)).await else { return };
        let before = Arc::clone(&probes.borrow());
        let after = observe(&before, results);
        for (name, probe) in &after.members {
            metrics.member_up(name.as_str(), probe.up());
        }
        for gone in before.members.keys().filter(|name| !after.members.contains_key(*name)) {
            metrics.member_gone(gone.as_str());
        }
        report.send_if_modified(|report| {
            let told = after.findings();
            let changed = report.probes != told;
            report.probes = told;
            tell(&mut report.rtt_ms, &after.rtt_ms) || changed
        });
        probes.send_if_modified(|known| {
            let changed = **known != after;
            *known = Arc::new(after);
            changed
        });
    }
}

/// Who is probed: everybody. A node-local DNS, of which there may be thousands, looks at its own member, and at those that it reaches
/// directly once the hub's word counts no more.
fn probed(world: &World, forwarder: &Forwarder) -> Vec<Arc<Member>> {
    let silent = world.silence.is_none_or(|silence| silence > Rules::default().fresh);
    let wanted = |member: &Member| match &world.table.home {
        None => true,
        Some(home) if home.cluster == member.name => true,
        Some(_) => silent && forwarder.dialer().route(member.name.as_str()) == Route::Direct,
    };
    world.table.members.values().filter(|member| wanted(member)).cloned().collect()
}

/// One probe of every member.
async fn round(forwarder: &Arc<Forwarder>, members: Vec<Arc<Member>>, measuring: bool) -> Vec<Found> {
    let probing = members.into_iter().map(|member| {
        let forwarder = Arc::clone(forwarder);
        async move {
            let (dns, agent) = tokio::join!(forwarder.probe(&member), knock(&forwarder, &member));
            let well = match (dns, agent) {
                (None, None) => None,
                (dns, agent) => Some(dns == Some(true) || agent == Some(true)),
            };
            let rtt = if measuring { measure(&forwarder, &member).await } else { None };
            Found { name: member.name.clone(), well, dns, rtt }
        }
    });
    futures::stream::iter(probing).buffer_unordered(PARALLEL_MAX).collect().await
}

/// How long it takes to the member's DNS and back: a connect, by the way that is taken to it. A refusal is an answer, too.
async fn measure(forwarder: &Forwarder, member: &Member) -> Option<Duration> {
    let server = member.servers.first()?;
    let (host, begun) = (server.ip().to_string(), Instant::now());
    let dialed = timeout(PROBE_MAX, forwarder.dialer().dial(member.name.as_str(), &host, server.port())).await.ok()?;
    match dialed {
        Ok(_) => {}
        Err(DialError::Direct { source, .. }) if source.kind() == std::io::ErrorKind::ConnectionRefused => {}
        Err(_) => return None,
    }
    Some(begun.elapsed())
}

/// Tells `told` what is worth telling of `measured`. Returns whether that was anything.
fn tell(told: &mut BTreeMap<String, u32>, measured: &BTreeMap<ClusterName, u32>) -> bool {
    let before = told.len();
    told.retain(|name, _| measured.contains_key(name.as_str()));
    let mut changed = told.len() != before;
    for (name, ms) in measured {
        if told.get(name.as_str()).is_none_or(|old| is_other(*old, *ms)) {
            told.insert(name.as_str().to_owned(), *ms);
            changed = true;
        }
    }
    changed
}

/// Three quarters of what it was, one of what it is now.
fn smooth(before: Option<u32>, now: Duration) -> u32 {
    let now = u32::try_from(now.as_millis()).unwrap_or(u32::MAX);
    before.map_or(now, |before| u32::try_from((u64::from(before) * 3 + u64::from(now)) / 4).unwrap_or(u32::MAX))
}

/// Whether a member's agent opens streams for us.
async fn knock(forwarder: &Forwarder, member: &Member) -> Option<bool> {
    let relays = forwarder.dialer().relays();
    if !relays.is_live(member.name.as_str()) {
        return None;
    }
    let server = member.servers.first();
    let (host, port) = server.map_or_else(|| ("127.0.0.1".to_owned(), 53), |s| (s.ip().to_string(), s.port()));
    // An agent that refuses, or that tried in vain, is there.
    let opened = timeout(PROBE_MAX, relays.open(member.name.as_str(), &host, port)).await;
    Some(matches!(opened, Ok(Ok(_) | Err(RelayError::Refused { .. } | RelayError::Unreachable { .. }))))
}

/// The probes after one more round; those of members that are gone, or that nothing is known of, are dropped.
fn observe(before: &Probes, round: Vec<Found>) -> Probes {
    let mut after = Probes::default();
    for Found { name, well, dns, rtt } in round {
        let known = before.rtt_ms.get(&name).copied();
        let ms = rtt.map(|rtt| smooth(known, rtt)).or(known);
        after.rtt_ms.extend(ms.map(|ms| (name.clone(), ms)));
        if let Some(well) = well {
            let (probe, changed) = next(before.members.get(&name), well);
            if changed {
                tracing::info!(cluster = name.as_str(), up = well, "our probe of a member changed");
            }
            if well || before.answered.contains(&name) {
                after.answered.insert(name.clone());
            }
            after.members.insert(name.clone(), probe);
        }
        if let Some(dns) = dns {
            let (probe, changed) = next(before.dns.get(&name), dns);
            if changed {
                tracing::info!(cluster = name.as_str(), up = dns, "our probe of a member's DNS changed");
            }
            after.dns.insert(name, probe);
        }
    }
    after
}

fn next(before: Option<&Probe>, ok: bool) -> (Probe, bool) {
    let mut probe = before.copied().unwrap_or_default();
    let changed = probe.observe(ok, &Rules::default());
    (probe, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_take_a_member_out_and_two_successes_bring_it_back() {
        let name: ClusterName = "prod-eu".parse().unwrap();
        let mut probes = Probes::default();
        let found = |well: bool, dns: bool| Found { name: name.clone(), well: Some(well), dns: Some(dns), rtt: None };
        for (round, (ok, up)) in
            [(true, true), (false, true), (false, true), (false, false), (true, false), (true, true)]
                .into_iter()
                .enumerate()
        {
            probes = observe(&probes, vec![found(ok, !ok)]);
            assert_eq!(probes.members[&name].up(), up, "round {round}");
        }
        assert_eq!(observe(&probes, vec![]), Probes::default());
    }

    #[test]
    fn the_way_to_a_member_is_smoothed_and_told_when_it_is_another() {
        let name: ClusterName = "prod-eu".parse().unwrap();
        let (mut probes, mut told) = (Probes::default(), BTreeMap::new());
        for (round, (ms, smoothed, says)) in [
            (Some(40), 40, Some(40)),
            (None, 40, Some(40)),
            (Some(48), 42, Some(40)),
            (Some(200), 81, Some(81)),
            (Some(80), 80, Some(81)),
        ]
        .into_iter()
        .enumerate()
        {
            let rtt = ms.map(Duration::from_millis);
            let found = Found { name: name.clone(), well: Some(true), dns: Some(true), rtt };
            probes = observe(&probes, vec![found]);
            tell(&mut told, &probes.rtt_ms);
            assert_eq!((probes.rtt_ms[&name], told.get("prod-eu").copied()), (smoothed, says), "round {round}");
        }
        assert!(tell(&mut told, &BTreeMap::new()) && told.is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn the_hub_is_told_nothing_before_something_was_found() {
        let name: ClusterName = "lab".parse().unwrap();
        let found = |well: bool| vec![Found { name: name.clone(), well: Some(well), dns: Some(well), rtt: None }];
        let told = |rounds: &[bool]| {
            rounds.iter().fold(Probes::default(), |probes, well| observe(&probes, found(*well))).findings()
        };
        for (rounds, says) in [
            (&[false, false][..], None),
            (&[false, false, false], Some(false)),
            (&[true], Some(true)),
            (&[true, false], Some(true)),
        ] {
            assert_eq!(told(rounds).get("lab").copied(), says, "{rounds:?}");
        }
    }
}
