//! How each member does: Joining → Ready → Suspect → Lost, by its heartbeats alone. Pure; the controller writes it down.
//!
//! In: how it beats, how it is kept in step, what data planes say of its DNS, the time. Out: [`Verdict`]. Two missed heartbeats
//! (10 s) make it not Ready; how long it must be lost before work leaves it is the placement's rule.

mod controller;
mod overlap;
mod push;

use std::time::Duration;

use atoll_api::kinds::SyncMode;
use atoll_api::topology::StubReport;
pub(crate) use controller::{Judged, Membership, patch_status, verdicts};
pub(crate) use push::Pushes;
pub use push::{PushMember, StartPush};
use tokio::time::Instant;

use crate::conditions::Found;
use crate::sessions::Beat;

/// Where a member is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Never heard of since the hub started, which was a moment ago; or never at all.
    Joining,
    /// Beats.
    Ready,
    /// Has missed two beats.
    Suspect,
    /// Has missed many.
    Lost,
}

/// The condition that says whether the member's own resolver asks Atoll; there while its agent says anything of it.
pub(crate) const STUB: &str = "StubApplied";
/// From Suspect to Lost, as conditions show it; policies have their own times.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// What is known of a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) mode: SyncMode,
    pub(crate) beat: Beat,
    pub(crate) connected: bool,
    pub(crate) has_reported: bool,
    /// What data planes say of its DNS; `None`: nothing.
    pub(crate) probed: Option<bool>,
    /// Whether anybody said where its DNS is.
    pub(crate) has_dns: bool,
    /// Why its in-process agent does not run (Push).
    pub(crate) push_error: Option<String>,
    /// Members whose ranges overlap its.
    pub(crate) overlaps: Vec<String>,
    /// What its agent did with its resolver, where it was asked to.
    pub(crate) stub: Option<StubReport>,
    /// What was written of it before: Ready, DNSReady.
    pub(crate) before: (Option<bool>, Option<bool>),
}

/// How a member does.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) phase: Phase,
    pub(crate) ready: bool,
    pub(crate) dns_ready: bool,
    pub(crate) overlaps: bool,
    /// How long since its last good heartbeat (or the hub's start).
    pub(crate) silent_for: Duration,
    /// How long it has been good without a gap.
    pub(crate) good_for: Duration,
    /// What its object is to show; empty while nothing is known yet.
    pub(crate) conditions: Vec<Found>,
}

/// Judges one member. `started`: when the hub began to listen; `missed`: a heartbeat later than this is missed.
pub(crate) fn judge(seen: &Seen, started: Instant, missed: Duration, now: Instant) -> Verdict {
    if seen.mode == SyncMode::None {
        return judge_names_only(seen);
    }
    let since = |at: Option<Instant>| now.saturating_duration_since(at.unwrap_or(started));
    let silent_for = since(seen.beat.good);
    let phase = match (seen.beat.good, silent_for) {
        (Some(_), s) if s <= missed => Phase::Ready,
        (None, s) if s <= missed || seen.before.0.is_none() => Phase::Joining,
        (_, s) if s <= LOST_AFTER => Phase::Suspect,
        _ => Phase::Lost,
    };
    let undecided = phase == Phase::Joining && seen.before.0.is_some();
    let ready = if undecided { seen.before.0.unwrap_or(false) } else { phase == Phase::Ready };
    let dns_good = seen.beat.is_dns_good(now, missed);
    let dns_ready = if undecided { seen.before.1.unwrap_or(false) } else { ready && dns_good };
    let conditions = if undecided {
        Vec::new()
    } else {
        let mut all = vec![
            ready_condition(seen, phase, silent_for),
            dns_condition(seen, ready, dns_good, since(seen.beat.heard) <= missed),
            syncing(seen),
            distinct(seen),
        ];
        all.extend(seen.stub.as_ref().map(stub));
        all
    };
    let good_for = match (ready, seen.beat.good_since) {
        (true, Some(at)) => now.saturating_duration_since(at),
        _ => Duration::ZERO,
    };
    Verdict { phase, ready, dns_ready, overlaps: !seen.overlaps.is_empty(), silent_for, good_for, conditions }
}

fn judge_names_only(seen: &Seen) -> Verdict {
    let up = seen.has_dns && seen.probed.unwrap_or(true);
    let dns = match seen.probed {
        _ if !seen.has_dns => {
            Found::new("DNSReady", false, "NoServers", "names only, but spec.dns.servers is empty: nobody can be asked")
        }
        Some(true) => Found::new("DNSReady", true, "Answers", "a DNS server of ours gets answers"),
        Some(false) => Found::new("DNSReady", false, "Silent", "no DNS server of ours gets an answer"),
        None => Found::unknown("DNSReady", "NotProbed", "no DNS server has reported yet"),
    };
    let (message, reason) = ("names only: nothing is placed or observed here", "NamesOnly");
    let ready = if up {
        Found::new("Ready", true, reason, message)
    } else {
        Found::new("Ready", false, dns.reason, &*dns.message)
    };
    Verdict {
        phase: if up { Phase::Ready } else { Phase::Lost },
        ready: up,
        dns_ready: up,
        overlaps: false,
        silent_for: Duration::ZERO,
        good_for: Duration::ZERO,
        conditions: vec![ready, dns, Found::new("Syncing", false, reason, message)],
    }
}

fn ready_condition(seen: &Seen, phase: Phase, silent_for: Duration) -> Found {
    let why = &seen.beat.reason;
    let heard = seen.beat.heard > seen.beat.good;
    let s = silent_for.as_secs();
    match phase {
        Phase::Ready => Found::new("Ready", true, "Beats", "its API server answers its agent"),
        Phase::Joining => Found::unknown("Ready", "Joining", waiting(seen)),
        Phase::Suspect | Phase::Lost if heard => Found::new(
            "Ready",
            false,
            "APIServerUnreachable",
            format!("its agent beats, but its API server has not answered for {}: {why}", about(s)),
        ),
        Phase::Suspect => Found::new("Ready", false, "HeartbeatsMissed", "two heartbeats of its agent were missed"),
        Phase::Lost => Found::new("Ready", false, "Lost", format!("nothing heard of its agent for {}", about(s))),
    }
}

/// Coarse, so that a message does not change each second.
fn about(seconds: u64) -> &'static str {
    match seconds {
        0..30 => "more than 10 s",
        30..60 => "more than 30 s",
        60..600 => "more than a minute",
        _ => "more than 10 minutes",
    }
}

fn waiting(seen: &Seen) -> String {
    match (&seen.push_error, seen.mode) {
        (Some(error), _) => error.clone(),
        (None, SyncMode::Push) => "the agent inside the hub has not reported yet".into(),
        _ => "its agent has not connected yet: run `atoll token create` and `atoll join`".into(),
    }
}

/// `beats`: its agent is heard, whatever it says.
fn dns_condition(seen: &Seen, ready: bool, dns_good: bool, beats: bool) -> Found {
    let (reason, why) = if beats { ("NotReady", "it is not ready") } else { ("AgentSilent", "its agent is silent") };
    match (ready, dns_good, seen.probed) {
        (true, true, _) => Found::new("DNSReady", true, "Answers", "its DNS answers its agent"),
        (true, false, _) => {
            Found::new("DNSReady", false, "Silent", format!("its DNS does not answer its agent: {}", seen.beat.reason))
        }
        (false, _, Some(true)) => {
            Found::new("DNSReady", false, reason, format!("its DNS answers a DNS server of ours, but {why}"))
        }
        (false, ..) => Found::unknown("DNSReady", reason, format!("nothing is known while {why}")),
    }
}

fn syncing(seen: &Seen) -> Found {
    match (seen.connected, seen.has_reported, &seen.push_error) {
        (true, true, _) => Found::new("Syncing", true, "Connected", "facts and assignments flow"),
        (true, false, _) => Found::new("Syncing", false, "FirstReport", "connected, has not reported in full yet"),
        // An error is remembered until the next attempt ends; an agent that is connected has got over it.
        (false, _, Some(error)) => Found::new("Syncing", false, "PushFailed", error.clone()),
        (false, ..) => Found::new("Syncing", false, "NotConnected", "no agent is connected"),
    }
}

/// Whether its own resolver asks Atoll for Atoll's names.
fn stub(report: &StubReport) -> Found {
    // The words are the agent's; a reason is one of a few.
    let reason = match report.reason.as_str() {
        "Applied" => "Applied",
        "Removed" => "Removed",
        "Refused" => "Refused",
        "Waiting" => "Waiting",
        _ => "Failed",
    };
    Found::new(STUB, report.applied, reason, report.message.chars().take(500).collect::<String>())
}

fn distinct(seen: &Seen) -> Found {
    if seen.overlaps.is_empty() {
        return Found::new("CIDRsDistinct", true, "Distinct", "its address ranges are its own");
    }
    let others = seen.overlaps.join(", ");
    Found::new(
        "CIDRsDistinct",
        false,
        "Overlap",
        format!("its address ranges overlap those of {others}: reached by relay"),
    )
}

#[cfg(test)]
mod tests;
