//! Carries requests through their states: reads objects and reports, writes status, hands jobs to the receiving member, keeps an
//! audit of Events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::{Facts, key};
use atoll_api::kinds::{PolicyStatus, Registry, ReplicationApproval, ReplicationRequest};
use atoll_api::names::ClusterName;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Client, Resource as _, ResourceExt as _};

use super::machine::{Case, Outcome, step};
use crate::conditions::{Found, merge};
use crate::membership::patch_status;
use crate::objects::Objects;
use crate::pulse::Pulse;
use crate::sessions::{Part, Sessions};

/// The approvals controller.
pub(crate) struct Approvals {
    pub(crate) client: Client,
    pub(crate) objects: Arc<Objects>,
    pub(crate) sessions: Arc<Sessions>,
}

impl Approvals {
    /// Runs until cancelled.
    pub(crate) async fn run(self) {
        let mut pulse = Pulse::new(vec![self.objects.changes(), self.sessions.changes()], Duration::from_secs(5));
        loop {
            self.pass().await;
            pulse.next().await;
        }
    }

    async fn pass(&self) {
        let now = Timestamp::now();
        let registries: BTreeMap<String, Registry> =
            self.objects.registries.state().iter().map(|r| (r.name_any(), (**r).clone())).collect();
        let approvals = self.objects.approvals.state();
        let mut jobs: BTreeMap<ClusterName, Facts> = self.members();
        for request in self.objects.requests.state() {
            if request.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let Some(outcome) = self.step(&request, &registries, &approvals, now) else { continue };
            hand_out(&request, &outcome, &mut jobs);
            self.write(&request, outcome, &approvals, now).await;
        }
        self.sessions.set_desired(Part::Copies, jobs);
    }

    fn members(&self) -> BTreeMap<ClusterName, Facts> {
        let clusters = self.objects.clusters.state();
        clusters.iter().filter_map(|c| Some((c.metadata.name.as_ref()?.parse().ok()?, Facts::default()))).collect()
    }

    fn step(
        &self,
        request: &ReplicationRequest,
        registries: &BTreeMap<String, Registry>,
        approvals: &[Arc<ReplicationApproval>],
        now: Timestamp,
    ) -> Option<Outcome> {
        let namespace = request.namespace();
        let policies = self.objects.replication_policies.state();
        let policy = policies.iter().find(|p| p.namespace() == namespace && p.name_any() == request.spec.policy);
        let mut votes: Vec<ReplicationApproval> = approvals
            .iter()
            .filter(|a| a.namespace() == namespace && a.spec.request == request.name_any())
            .map(|a| (**a).clone())
            .collect();
        votes.sort_by_key(|a| (a.creation_timestamp().map(|t| t.0), a.name_any()));
        let receiver = policy
            .and_then(|p| registries.get(&p.spec.to))
            .and_then(|r| r.spec.cluster.as_ref()?.parse::<ClusterName>().ok());
        let (check, copy) = receiver.map(|r| self.reports(&r, request)).unwrap_or_default();
        let created = request.creation_timestamp().map_or(now, |t| t.0);
        let case = Case {
            request,
            policy: policy.map(|p| &**p),
            registries,
            approvals: &votes,
            check: check.as_ref(),
            copy: copy.as_ref(),
            age: Duration::try_from(now.duration_since(created)).unwrap_or_default(),
        };
        let mut outcome = step(&case);
        let old = request.status.clone().unwrap_or_default();
        let generation = request.metadata.generation;
        outcome.status.checks = merge(&old.checks, std::mem::take(&mut outcome.checks), generation, now);
        // The receiver's report is away for a moment (a restart): what was found before stands until it is back.
        if check.is_none() && old.closure.is_some() && !outcome.status.state.is_final() {
            outcome.status = old;
            outcome.copy = None;
        }
        Some(outcome)
    }

    fn reports(
        &self,
        receiver: &ClusterName,
        request: &ReplicationRequest,
    ) -> (Option<atoll_api::copy::CheckReport>, Option<atoll_api::copy::CopyReport>) {
        let members = self.sessions.lock();
        let Some(member) = members.get(receiver) else { return (None, None) };
        let held = member.status.facts();
        (held.get(&key_of(key::CHECK, request)), held.get(&key_of(key::COPY, request)))
    }

    async fn write(
        &self,
        request: &ReplicationRequest,
        outcome: Outcome,
        approvals: &[Arc<ReplicationApproval>],
        now: Timestamp,
    ) {
        let old = request.status.clone().unwrap_or_default();
        let namespace = request.namespace().unwrap_or_default();
        if request.status.as_ref() != Some(&outcome.status) {
            let api: Api<ReplicationRequest> = Api::namespaced(self.client.clone(), &namespace);
            if let Err(error) = patch_status(&api, &request.name_any(), &outcome.status).await {
                tracing::warn!(request = request.name_any(), %error, "request status not written");
                return;
            }
            if request.status.is_none() || old.state != outcome.status.state {
                self.audit(request, &outcome, now).await;
            }
        }
        for (name, counts) in &outcome.votes {
            let found =
                |a: &&Arc<ReplicationApproval>| a.name_any() == *name && a.namespace().as_deref() == Some(&namespace);
            if let Some(approval) = approvals.iter().find(found) {
                self.judge_vote(approval, counts, now).await;
            }
        }
    }

    async fn judge_vote(&self, approval: &ReplicationApproval, counts: &Result<(), String>, now: Timestamp) {
        let found = match counts {
            Ok(()) => Found::new("Counts", true, "Counts", ""),
            Err(why) => Found::new("Counts", false, "DoesNotCount", why),
        };
        let old = approval.status.clone().unwrap_or_default();
        let generation = approval.metadata.generation;
        let status = PolicyStatus {
            observed_generation: generation,
            conditions: merge(&old.conditions, [found], generation, now),
        };
        if approval.status.as_ref() != Some(&status) {
            let api = Api::namespaced(self.client.clone(), &approval.namespace().unwrap_or_default());
            if let Err(error) = patch_status::<ReplicationApproval>(&api, &approval.name_any(), &status).await {
                tracing::warn!(approval = approval.name_any(), %error, "vote's status not written");
            }
        }
    }

    /// One Event for every change of state: who asked for what, what became of it.
    async fn audit(&self, request: &ReplicationRequest, outcome: &Outcome, now: Timestamp) {
        let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
        let status = &outcome.status;
        let votes: Vec<String> =
            status.votes.iter().filter(|v| v.counts).map(|v| format!("{} by {}", v.decision, v.voter)).collect();
        let message = format!(
            "{}; requested by {}; {}; votes: {}",
            status.message.as_deref().unwrap_or_default(),
            status.requester.as_deref().unwrap_or("nobody"),
            request.spec.images.join(", "),
            if votes.is_empty() { "none".to_owned() } else { votes.join(", ") },
        );
        tracing::info!(request = format!("{namespace}/{name}"), state = ?status.state, message, "image request");
        let mut event = Event {
            involved_object: ObjectReference { namespace: Some(namespace.clone()), ..request.object_ref(&()) },
            reason: Some(format!("{:?}", status.state)),
            message: Some(message.chars().take(1000).collect()),
            type_: Some("Normal".into()),
            source: Some(EventSource { component: Some("atoll-hub".into()), host: None }),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        event.metadata.name = Some(format!("{name}.{:x}", now.as_nanosecond()));
        event.metadata.namespace = Some(namespace.clone());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::warn!(request = name, %error, "audit event not written");
        }
    }
}

fn key_of(word: &str, request: &ReplicationRequest) -> String {
    format!("{word}/{}/{}", request.namespace().unwrap_or_default(), request.name_any())
}

fn hand_out(request: &ReplicationRequest, outcome: &Outcome, jobs: &mut BTreeMap<ClusterName, Facts>) {
    if let Some((receiver, job)) = &outcome.check {
        jobs.entry(receiver.clone()).or_default().put(key_of(key::CHECK, request), job);
    }
    if let Some((receiver, job)) = &outcome.copy {
        jobs.entry(receiver.clone()).or_default().put(key_of(key::COPY, request), job);
    }
}
