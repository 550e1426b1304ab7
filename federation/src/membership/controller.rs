//! Writes down how members do: conditions and facts of each Cluster, on a change (free room: every 10 s at most), else once a minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_api::kinds::{CertificateStatus, Cidrs, Cluster, ClusterStatus, MemberDns, Reach};
use atoll_api::names::ClusterName;
use atoll_api::topology::MemberFacts;
use atoll_reach::{Route, Routes, Serial};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;

use super::overlap::overlaps;
use super::{STUB, Seen, Verdict, judge};
use crate::authority::Revoked;
use crate::conditions::{merge, status_of};
use crate::objects::Objects;
use crate::pulse::Pulse;
use crate::sessions::Sessions;
use crate::topology::Sites;

/// A status in which nothing but the last heartbeat changed is written this often.
const BEATS_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// One in which the free room changed too: pods come and go all the time, and each write goes to everybody who watches.
const ROOM_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// What membership reads and writes.
pub(crate) struct Membership {
    pub(crate) client: Client,
    pub(crate) objects: Arc<Objects>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) sites: Arc<Sites>,
    pub(crate) routes: Routes,
    pub(crate) revoked: Arc<Revoked>,
    pub(crate) push_errors: Arc<Mutex<BTreeMap<ClusterName, String>>>,
}

/// A member as the hub sees it now.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) member: Arc<MemberFacts>,
    pub(crate) cidrs: Cidrs,
    pub(crate) dns: Option<MemberDns>,
    pub(crate) verdict: Verdict,
}

/// Every member that has an object, judged now.
pub(crate) fn verdicts(membership: &Membership, now: Instant) -> BTreeMap<ClusterName, Judged> {
    let mut seen = look(membership, now);
    let ranges: Vec<(String, Cidrs)> = seen.iter().map(|(n, s)| (n.to_string(), s.cidrs.clone())).collect();
    let mut overlapping = overlaps(ranges.iter().map(|(n, c)| (n.as_str(), c)));
    for (name, looked) in &mut seen {
        looked.seen.overlaps = overlapping.remove(name.as_str()).unwrap_or_default();
    }
    let (started, missed) = (membership.sessions.started, membership.sessions.missed);
    let judged = seen.into_iter().map(|(name, l)| {
        let verdict = judge(&l.seen, started, missed, now);
        (name, Judged { cluster: l.cluster, member: l.member, cidrs: l.cidrs, dns: l.dns, verdict })
    });
    judged.collect()
}

struct Looked {
    cluster: Arc<Cluster>,
    member: Arc<MemberFacts>,
    cidrs: Cidrs,
    dns: Option<MemberDns>,
    seen: Seen,
}

fn look(membership: &Membership, now: Instant) -> BTreeMap<ClusterName, Looked> {
    let probes = membership.sites.probes(now);
    let push_errors = membership.push_errors.lock().unwrap_or_else(PoisonError::into_inner);
    let members = membership.sessions.lock();
    let clusters = membership.objects.clusters.state();
    let looked = clusters.into_iter().filter_map(|cluster| {
        let name: ClusterName = cluster.metadata.name.as_ref()?.parse().ok()?;
        let held = members.get(&name);
        let facts = held.map(|m| Arc::clone(&m.about)).unwrap_or_default();
        let status = cluster.status.clone().unwrap_or_default();
        let before = |kind| {
            status_of(&status.conditions, kind).and_then(|s| match s {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            })
        };
        let has_reported = held.is_some_and(crate::sessions::Member::has_reported);
        // Written counts before found, found before remembered (a member that is away at the hub's start).
        let cidrs = cluster.spec.cidrs.clone().unwrap_or_else(|| match has_reported {
            true => facts.cidrs.clone(),
            false => status.cidrs.clone().unwrap_or_default(),
        });
        let found_dns = if has_reported { facts.dns.clone() } else { status.dns.clone() };
        let dns = cluster.spec.dns.clone().or(found_dns);
        let seen = Seen {
            mode: cluster.spec.sync.mode,
            beat: held.map(|m| m.beat.clone()).unwrap_or_default(),
            connected: held.is_some_and(|m| m.connected.is_some()),
            has_reported,
            has_dns: dns.as_ref().is_some_and(|d| !d.servers.is_empty()),
            probed: probes.get(name.as_str()).copied(),
            push_error: push_errors.get(&name).cloned(),
            overlaps: Vec::new(),
            stub: held.and_then(|m| m.status.facts().get(atoll_api::facts::key::STUB)),
            before: (before("Ready"), before("DNSReady")),
        };
        Some((name, Looked { cluster, member: facts, cidrs, dns, seen }))
    });
    looked.collect()
}

impl Membership {
    /// Runs until cancelled.
    pub(crate) async fn run(self: Arc<Self>) {
        let watches = vec![self.objects.changes(), self.sessions.changes()];
        let mut pulse = Pulse::new(watches, Duration::from_secs(1));
        let mut serials: BTreeMap<ClusterName, Vec<(Serial, Timestamp)>> = BTreeMap::new();
        loop {
            let now = Timestamp::now();
            for (name, judged) in verdicts(&self, Instant::now()) {
                if let Some(status) = self.status(&name, &judged, now) {
                    self.write(&name, &status).await;
                }
            }
            self.part_with_the_gone(&mut serials, now).await;
            pulse.next().await;
        }
    }

    /// The status to be written; `None` where what is written will do.
    fn status(&self, name: &ClusterName, judged: &Judged, now: Timestamp) -> Option<ClusterStatus> {
        let old = judged.cluster.status.clone().unwrap_or_default();
        let generation = judged.cluster.metadata.generation;
        let mut new = old.clone();
        new.observed_generation = generation;
        new.conditions = merge(&old.conditions, judged.verdict.conditions.clone(), generation, now);
        if !judged.verdict.conditions.iter().any(|found| found.kind == STUB) && self.has_said(name) {
            new.conditions.retain(|condition| condition.type_ != STUB);
        }
        new.reach = match (judged.cluster.spec.reach, self.routes.of(name.as_str())) {
            (Reach::Relay, _) | (_, Route::Relay) => Some("Relay".into()),
            (Reach::Direct, _) | (_, Route::Direct) => Some("Direct".into()),
            (Reach::Auto, Route::Unknown) => old.reach.clone(),
        };
        new.cidrs = Some(judged.cidrs.clone()).filter(|c| *c != Cidrs::default()).or(old.cidrs.clone());
        new.dns = judged.dns.clone().or(old.dns.clone());
        self.take_session(name, &judged.member, &mut new);
        if !is_due(&old, &new, judged.verdict.ready, now) {
            return None;
        }
        if judged.verdict.ready {
            new.last_heartbeat = Some(now.to_string());
        }
        (new != old).then_some(new)
    }

    /// Whether its agent has said what it did since the hub started.
    fn has_said(&self, name: &ClusterName) -> bool {
        self.sessions.lock().get(name).is_some_and(|member| member.has_reported() && member.status.version().is_some())
    }

    fn take_session(&self, name: &ClusterName, facts: &MemberFacts, status: &mut ClusterStatus) {
        let members = self.sessions.lock();
        let Some(member) = members.get(name) else { return };
        if member.has_reported() {
            status.version = Some(facts.version.clone()).filter(|v| !v.is_empty());
            status.nodes = Some(facts.nodes_ready.into());
            status.capacity = facts.capacity.clone();
            status.allocatable = facts.allocatable.clone();
            status.free = facts.free.clone();
        }
        if let Some(connected) = &member.connected {
            status.agent_version = Some(connected.agent_version.clone()).filter(|v| !v.is_empty());
            let not_after = Timestamp::try_from(connected.peer.not_after).map(|t| t.to_string()).unwrap_or_default();
            status.certificate = Some(CertificateStatus { serial: connected.peer.serial.to_string(), not_after });
        }
    }

    async fn write(&self, name: &ClusterName, status: &ClusterStatus) {
        let clusters: Api<Cluster> = Api::all(self.client.clone());
        let done = patch_status(&clusters, name.as_str(), status).await;
        if let Err(error) = done {
            tracing::warn!(cluster = %name, %error, "cluster status not written");
        }
    }

    /// Ends the links of members whose object is gone and revokes their certificates.
    async fn part_with_the_gone(&self, known: &mut BTreeMap<ClusterName, Vec<(Serial, Timestamp)>>, now: Timestamp) {
        let clusters = self.objects.clusters.state();
        for cluster in &clusters {
            let name = cluster.metadata.name.as_ref().and_then(|n| n.parse::<ClusterName>().ok());
            let certificate = cluster.status.as_ref().and_then(|s| s.certificate.as_ref());
            if let (Some(name), Some(c)) = (name, certificate) {
                let (serial, until) = (Serial::from_hex(&c.serial), c.not_after.parse().unwrap_or(now));
                let held = known.entry(name).or_default();
                if !held.iter().any(|(s, _)| *s == serial) {
                    held.push((serial, until));
                    held.retain(|(_, until)| *until >= now);
                }
            }
        }
        let is_there = |name: &ClusterName| clusters.iter().any(|c| c.metadata.name.as_deref() == Some(name.as_str()));
        let mut gone = self.sessions.retain(is_there);
        gone.extend(known.extract_if(.., |name, _| !is_there(name)).flat_map(|(_, serials)| serials));
        for (serial, until) in gone {
            tracing::info!(%serial, "certificate of a member that was removed is revoked");
            if let Err(error) = self.revoked.add(&serial, until, now).await {
                tracing::warn!(%serial, %error, "revocation counts here but is not stored");
            }
            self.sessions.touch();
        }
    }
}

/// Replaces the status of an object whole, whatever it was.
pub(crate) async fn patch_status<K>(api: &Api<K>, name: &str, status: &impl serde::Serialize) -> Result<(), kube::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    // RFC 6902 §4.1: `add` of a member that exists replaces it.
    let patch = json!([{"op": "add", "path": "/status", "value": status}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).expect("a well-formed patch");
    api.patch_status(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await.map(drop)
}

/// Whether `new` is to be written over `old` now. Pure.
fn is_due(old: &ClusterStatus, new: &ClusterStatus, ready: bool, now: Timestamp) -> bool {
    if (ClusterStatus { free: old.free.clone(), ..new.clone() }) != *old {
        return true;
    }
    let written: Option<Timestamp> = old.last_heartbeat.as_ref().and_then(|at| at.parse().ok());
    let since = |least| written.is_none_or(|at| now.duration_since(at) >= least);
    (new.free != old.free && since(ROOM_EVERY)) || (ready && since(BEATS_EVERY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_at_once_free_room_within_seconds_and_heartbeats_by_the_minute() {
        let written: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let status = |version: &str, cpu: &str| ClusterStatus {
            version: Some(version.into()),
            free: BTreeMap::from([("cpu".to_owned(), cpu.to_owned())]),
            last_heartbeat: Some(written.to_string()),
            ..ClusterStatus::default()
        };
        let old = status("v1", "4");
        for (what, new, ready, after, due) in [
            ("nothing", status("v1", "4"), true, 59, false),
            ("nothing but time", status("v1", "4"), true, 60, true),
            ("no heartbeat", status("v1", "4"), false, 600, false),
            ("less room, just now", status("v1", "3"), true, 9, false),
            ("less room", status("v1", "3"), true, 10, true),
            ("a version", status("v2", "4"), true, 0, true),
        ] {
            let now = written + SignedDuration::from_secs(after);
            assert_eq!(is_due(&old, &new, ready, now), due, "{what}");
        }
    }
}
