//! Statuses of the member's Services of type LoadBalancer, of the class of gateways or of a balancer that others own: where they are served, as
//! the hub says.
//!
//! In: the hub's word, the Services as they are watched. Out: `status.loadBalancer` and Warning Events. What the hub says no more is taken away
//! after a while, at once where this is no member any more; what is no longer of the class, where this agent wrote it. Never: touches the
//! status of a Service of another class, or anything while the hub can't be heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::FIELD_MANAGER;
use atoll_api::topology::{BalancerProblem, BalancerState};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::desired::{Desired, Word};
use crate::observe::Seen;

/// Between two looks: a status that somebody else changed is mended within this.
const EVERY: Duration = Duration::from_secs(2);
/// So long the hub may say nothing of a Service that it gave addresses: its gateways may be starting.
const UNSAID_MAX: Duration = Duration::from_secs(30);
/// Events are remembered up to so many; then they may be told again.
const TOLD_MAX: usize = 4096;
const MESSAGE_MAX: usize = 1024;

/// Writes statuses.
pub(crate) struct Balancers {
    client: Client,
    seen: Arc<Seen>,
    /// What was written in this life, by Service.
    written: BTreeMap<String, Value>,
    /// Since when the hub has said nothing of a Service that has addresses.
    unsaid: BTreeMap<String, Instant>,
    told: BTreeMap<String, Vec<BalancerProblem>>,
    /// Gateways write these statuses themselves.
    holds_hub: bool,
}

/// A Service as it is.
struct Row {
    name: String,
    has: Vec<String>,
    /// It is of a class of ours.
    ours: bool,
}

impl Balancers {
    pub(crate) fn new(client: Client, seen: Arc<Seen>) -> Self {
        let (written, unsaid, told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { client, seen, written, unsaid, told, holds_hub: false }
    }

    /// Writes until `shutdown`.
    pub(crate) async fn run(mut self, mut word: watch::Receiver<Word>, shutdown: CancellationToken) {
        loop {
            let now = word.borrow_and_update().clone();
            let look = async {
                match (&now.desired, now.left) {
                    (_, true) => self.look(&Desired::default(), Duration::ZERO).await,
                    (Some(desired), _) if now.heard => self.look(desired, UNSAID_MAX).await,
                    _ => {}
                }
            };
            if shutdown.run_until_cancelled(look).await.is_none() {
                return;
            }
            tokio::select! {
                changed = word.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn look(&mut self, desired: &Desired, unsaid_max: Duration) {
        if !self.seen.services.is_synced() {
            return;
        }
        self.holds_hub |= desired.holds_hub(self.seen.uid(&self.client).await);
        if self.holds_hub {
            return;
        }
        let rows = self.rows();
        let known = |name: &String| rows.iter().any(|row| row.name == *name);
        self.written.retain(|name, _| known(name));
        self.unsaid.retain(|name, _| known(name));
        self.told.retain(|name, _| known(name));
        for row in &rows {
            match desired.balancers.get(&row.name).filter(|_| row.ours) {
                Some(state) => {
                    self.unsaid.remove(&row.name);
                    self.put(row, state).await;
                    self.tell(&row.name, &state.problems).await;
                }
                None if row.has.is_empty() => drop(self.written.remove(&row.name)),
                // What can't be read is not absent.
                None if row.ours
                    && desired.unread.contains(&format!("{}/{}", atoll_api::facts::key::BALANCER, row.name)) => {}
                None => {
                    let since = *self.unsaid.entry(row.name.clone()).or_insert_with(Instant::now);
                    if !row.ours || since.elapsed() >= unsaid_max {
                        self.put(row, &BalancerState::default()).await;
                    }
                }
            }
        }
    }

    /// The Services of the class, and those whose addresses are this agent's word.
    fn rows(&self) -> Vec<Row> {
        let services = self.seen.services.rows();
        let each = services.iter().filter_map(|(name, service)| {
            let (ours, mine) = (service.balancer.is_some(), self.written.contains_key(name));
            let has = service.load_balancer.clone();
            (ours || mine).then(|| Row { name: name.clone(), has, ours })
        });
        each.collect()
    }

    /// Writes a status where it says something else.
    async fn put(&mut self, row: &Row, state: &BalancerState) {
        let ingress = state.ingress();
        let said = if ingress.is_empty() { Value::Null } else { json!(ingress) };
        let same = row.has == state.reached();
        if same && (row.has.is_empty() || self.written.get(&row.name) == Some(&said)) {
            return;
        }
        let Some((namespace, name)) = row.name.split_once('/') else { return };
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": said}}}));
        match services.patch_status(name, &PatchParams::apply(FIELD_MANAGER), &patch).await {
            Ok(_) => {
                tracing::info!(service = row.name, addresses = ?state.reached(), "status of a Service written");
                self.written.insert(row.name.clone(), said);
            }
            // It went meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(service = row.name, %error, "status of a Service not written yet"),
        }
    }

    /// Tells problems, each once.
    async fn tell(&mut self, service: &str, problems: &[BalancerProblem]) {
        if problems.is_empty() {
            self.told.remove(service);
            return;
        }
        if self.told.len() > TOLD_MAX {
            self.told.clear();
        }
        let told = self.told.get(service).cloned().unwrap_or_default();
        let Some((namespace, name)) = service.split_once('/') else { return };
        for problem in problems.iter().filter(|problem| !told.contains(problem)) {
            let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            // One that can't be written is no reason for anything.
            if let Err(error) = events.create(&PostParams::default(), &event(namespace, name, problem)).await {
                tracing::debug!(service, %error, "no event written");
            }
        }
        self.told.insert(service.to_owned(), problems.to_vec());
    }
}

fn event(namespace: &str, name: &str, problem: &BalancerProblem) -> Event {
    let now = Time(jiff::Timestamp::now());
    let said = format!("{name} {} {} {now:?}", problem.reason, problem.message);
    let mark: String = Sha256::digest(said.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{mark}", name.chars().take(200).collect::<String>())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(problem.reason.clone()),
        message: Some(problem.message.chars().take(MESSAGE_MAX).collect()),
        source: Some(EventSource { component: Some("atoll-agent".to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}
