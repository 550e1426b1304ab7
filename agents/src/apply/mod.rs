//! Application: what the hub wants, made so in the member, kept so, and taken away again.
//!
//! In: the link's word; what is live. Out: server-side applies, deletions, a report for each Bundle. Straight line: decide
//! which Bundles need hands → apply or remove them, a few at once → report. Nothing is changed while the hub can't be heard.

mod bundle;
mod inventory;
mod kinds;
mod live;
mod prepare;
mod ready;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::facts::{Facts, key};
use atoll_api::guard::OptIn;
use atoll_api::topology::{BundleReport, DesiredBundle};
use futures::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::desired::{Desired, Word};
use crate::error::AgentError;
use crate::namespace;
use crate::observe::Seen;
use bundle::{AppliedObject, Hands, Outcome};
use inventory::Inventory;
use kinds::Kinds;
use live::{Live, Sight};

const DEBOUNCE: Duration = Duration::from_millis(50);
/// Bundles worked on at once.
const PARALLEL_MAX: usize = 4;
/// Everything is applied anew this often, whether or not anything was seen to change.
const PERIOD: Duration = Duration::from_secs(300);
/// After this long an applied object must show in its watch, else it was deleted.
const SHOWS_WITHIN: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long a brought namespace is waited for before it is left to what others have in it.
const NAMESPACE_WAIT_MAX: Duration = Duration::from_secs(600);
/// It is looked at less and less often, at least this often.
const NAMESPACE_PAUSE_MAX: Duration = Duration::from_secs(5);
const MESSAGE_LEN_MAX: usize = 1000;

/// A Bundle as this agent last left it.
#[derive(Default)]
struct Held {
    revision: String,
    objects: Vec<AppliedObject>,
    failures: Vec<String>,
    at: Option<Instant>,
    /// Tries in a row that failed, or found the same thing changed again.
    streak: u32,
}

impl Held {
    fn rested(&self) -> bool {
        let pause = (RETRY_MIN * 2_u32.saturating_pow(self.streak.min(10))).min(RETRY_MAX);
        self.at.is_none_or(|at| at.elapsed() >= pause)
    }
}

/// A Bundle on its way out.
#[derive(Default)]
struct Leaving {
    /// Since when nothing of its own is left.
    emptied: Option<Instant>,
    /// When its namespace is looked at again.
    look: Option<Instant>,
}

/// Carries out what the hub wants.
pub(crate) struct Applier {
    hands: Hands,
    live: Live,
    changed: Arc<Notify>,
    seen: Arc<Seen>,
    status: watch::Sender<Arc<Facts>>,
    inventories: Option<BTreeMap<String, Inventory>>,
    held: HashMap<String, Held>,
    leaving: HashMap<String, Leaving>,
    prepared: bool,
    applies: prometheus::IntCounterVec,
}

impl Applier {
    pub(crate) fn new(
        client: kube::Client,
        opt_in: OptIn,
        seen: Arc<Seen>,
        status: watch::Sender<Arc<Facts>>,
        applies: prometheus::IntCounterVec,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let hands = Hands { client: client.clone(), kinds: Kinds::new(client.clone()), opt_in };
        Self {
            live: Live::new(client, Arc::clone(&changed)),
            hands,
            changed,
            seen,
            status,
            inventories: None,
            held: HashMap::new(),
            leaving: HashMap::new(),
            prepared: false,
            applies,
        }
    }

    /// Runs until `shutdown`.
    pub(crate) async fn run(mut self, mut word: watch::Receiver<Word>, shutdown: CancellationToken) {
        loop {
            let now = word.borrow_and_update().clone();
            if let Some(desired) = &now.desired {
                let mut busy = false;
                if now.heard {
                    // A step is cut short only by the end of the agent; a Bundle half applied is applied anew.
                    busy = tokio::select! {
                        busy = self.step(desired) => busy,
                        () = shutdown.cancelled() => return,
                    };
                }
                self.report(desired);
                let pause = if busy || !now.heard { RETRY_MIN } else { RETRY_MAX };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.changed.notified() => {}
                    Ok(()) = word.changed() => {}
                    () = shutdown.cancelled() => return,
                }
                tokio::time::sleep(DEBOUNCE).await;
            } else {
                tokio::select! {
                    Ok(()) = word.changed() => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }

    /// Does what is due. True if something remains to be done soon.
    async fn step(&mut self, desired: &Desired) -> bool {
        if !self.prepared {
            match prepare::prepare(&self.hands.client).await {
                Ok(()) => self.prepared = true,
                Err(error) => {
                    tracing::warn!(%error, "the member can't be prepared yet");
                    return true;
                }
            }
        }
        if self.inventories.is_none() {
            match inventory::load(&self.hands.client).await {
                Ok(found) => self.inventories = Some(found),
                Err(error) => {
                    tracing::warn!(%error, "inventories can't be read yet");
                    return true;
                }
            }
        }
        let applied = self.apply_due(desired).await;
        let removed = self.remove_due(desired).await;
        applied || removed
    }

    async fn apply_due(&mut self, desired: &Desired) -> bool {
        let inventories = self.inventories.clone().unwrap_or_default();
        let due: Vec<(String, Arc<DesiredBundle>, Inventory)> = desired
            .bundles
            .iter()
            .filter(|(name, bundle)| need(self.held.get(*name), &self.live, bundle) == Need::Now)
            .filter(|(_, bundle)| self.waits_for(bundle).is_none())
            .map(|(name, bundle)| {
                (name.clone(), Arc::clone(bundle), inventories.get(name).cloned().unwrap_or_default())
            })
            .collect();
        let hands = &self.hands;
        let outcomes: Vec<_> = futures::stream::iter(due)
            .map(|(name, bundle, before)| async move {
                let outcome = hands.apply(&bundle, &before).await;
                (name, bundle, outcome)
            })
            .buffer_unordered(PARALLEL_MAX)
            .collect()
            .await;
        for (name, bundle, outcome) in outcomes {
            self.hold(name, &bundle, outcome);
        }
        desired.bundles.iter().any(|(name, bundle)| need(self.held.get(name), &self.live, bundle) != Need::None)
    }

    fn hold(&mut self, name: String, bundle: &DesiredBundle, outcome: Result<Outcome, AgentError>) {
        let held = self.held.entry(name.clone()).or_default();
        let soon = held.at.is_some_and(|at| at.elapsed() < RETRY_MAX * 2) && held.revision == bundle.revision;
        held.at = Some(Instant::now());
        let result = match outcome {
            Ok(outcome) => {
                for object in &outcome.objects {
                    self.live.watch(&object.kind);
                }
                held.revision.clone_from(&bundle.revision);
                held.streak = if soon || !outcome.failures.is_empty() { held.streak + 1 } else { 0 };
                held.objects = outcome.objects;
                held.failures = outcome.failures;
                self.inventories.get_or_insert_default().insert(name.clone(), outcome.inventory);
                if held.failures.is_empty() { "applied" } else { "failed" }
            }
            Err(error) => {
                held.streak += 1;
                held.failures = vec![error.to_string()];
                "failed"
            }
        };
        self.applies.with_label_values(&[result]).inc();
        if !held.failures.is_empty() {
            tracing::warn!(bundle = name, failures = ?held.failures, "not wholly applied");
        }
    }

    /// Takes away what the hub no longer wants: absent from a complete set, and not merely unreadable.
    async fn remove_due(&mut self, desired: &Desired) -> bool {
        let gone: Vec<Inventory> = self
            .inventories
            .get_or_insert_default()
            .values()
            .filter(|inventory| {
                let name = &inventory.bundle;
                !desired.bundles.contains_key(name) && !desired.unread.contains(&format!("{}/{name}", key::BUNDLE))
            })
            .cloned()
            .collect();
        self.leaving.retain(|name, _| gone.iter().any(|inventory| inventory.bundle == *name));
        for inventory in gone {
            // Wanted again before all of it is gone, it is applied as if it were new.
            self.held.remove(&inventory.bundle);
            match self.remove(&inventory, desired).await {
                Ok(true) => {
                    self.leaving.remove(&inventory.bundle);
                    self.inventories.get_or_insert_default().remove(&inventory.bundle);
                    tracing::info!(bundle = inventory.bundle, "removed");
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(bundle = inventory.bundle, %error, "not removed yet"),
            }
        }
        !self.leaving.is_empty()
    }

    /// Its own objects first, then the namespace if we brought it and nobody else uses it. True once that is settled.
    async fn remove(&mut self, inventory: &Inventory, desired: &Desired) -> Result<bool, AgentError> {
        let leaving = self.leaving.entry(inventory.bundle.clone()).or_default();
        if leaving.emptied.is_none() && self.hands.remove(inventory).await? > 0 {
            return Ok(false);
        }
        let now = Instant::now();
        let waited = now - *leaving.emptied.get_or_insert(now);
        let namespace = inventory.bundle.split('/').next().unwrap_or_default();
        let used = desired.bundles.values().any(|bundle| bundle.namespace == namespace);
        if !used && waited < NAMESPACE_WAIT_MAX {
            if leaving.look.is_some_and(|look| now < look) {
                return Ok(false);
            }
            leaving.look = Some(now + (waited / 4).clamp(RETRY_MIN, NAMESPACE_PAUSE_MAX));
            if !namespace::retire(&self.hands.client, namespace).await? {
                return Ok(false);
            }
        }
        inventory::forget(&self.hands.client, &inventory.bundle).await?;
        Ok(true)
    }

    /// The first dependency that is not ready here.
    fn waits_for(&self, bundle: &DesiredBundle) -> Option<String> {
        let status = self.status.borrow();
        bundle.dependencies.iter().find_map(|name| {
            let report: Option<BundleReport> = status.get(&format!("{}/{name}", key::BUNDLE));
            (!report.is_some_and(|r| r.ready)).then(|| format!("waits for Bundle {name}"))
        })
    }

    fn report(&self, desired: &Desired) {
        let mut reports: BTreeMap<String, BundleReport> = BTreeMap::new();
        for (name, bundle) in &desired.bundles {
            let waits = self.waits_for(bundle);
            reports.insert(format!("{}/{name}", key::BUNDLE), self.report_one(self.held.get(name), bundle, waits));
        }
        for name in self.leaving.keys() {
            let message = Some("being removed".to_owned());
            reports.insert(format!("{}/{name}", key::BUNDLE), BundleReport { message, ..BundleReport::default() });
        }
        self.status.send_if_modified(|facts| {
            let prefix = format!("{}/", key::BUNDLE);
            let stale: Vec<String> = facts
                .iter()
                .map(|(key, _)| key)
                .filter(|key| key.starts_with(&prefix) && !reports.contains_key(*key))
                .map(str::to_owned)
                .collect();
            let facts = Arc::make_mut(facts);
            let mut changed = false;
            for key in stale {
                changed |= facts.remove(&key);
            }
            for (key, report) in &reports {
                changed |= facts.put(key.clone(), report);
            }
            changed
        });
    }

    fn report_one(&self, held: Option<&Held>, bundle: &DesiredBundle, waits: Option<String>) -> BundleReport {
        let mut report = BundleReport::default();
        let mut messages: Vec<String> = waits.into_iter().collect();
        if bundle.suspend {
            messages.push("suspended".to_owned());
        }
        let Some(held) = held else {
            report.message = (!messages.is_empty()).then(|| messages.join("; "));
            return report;
        };
        report.revision.clone_from(&held.revision);
        report.applied = held.revision == bundle.revision && held.failures.is_empty();
        messages.extend(held.failures.iter().cloned());
        report.ready = report.applied;
        for object in &held.objects {
            let (Sight::AsApplied(state) | Sight::Drifted(state)) = self.live.sight(object) else {
                report.ready = false;
                messages.push(format!("{} {} is not there", object.place.kind, object.place.name));
                continue;
            };
            report.replicas += state.replicas;
            report.ready_replicas += state.ready_replicas;
            if !state.ready {
                report.ready = false;
                let why = state.message.unwrap_or_default();
                messages.push(format!("{} {}: {why}", object.place.kind, object.place.name));
            }
            if let Some(selector) = state.selector.filter(|_| state.ready_replicas < state.replicas) {
                let (count, why) = self.unschedulable(object.place.namespace.as_deref(), &selector);
                report.unschedulable += count;
                messages.extend(why);
            }
        }
        let message: String = messages.join("; ").chars().take(MESSAGE_LEN_MAX).collect();
        report.message = (!message.is_empty()).then_some(message);
        report
    }

    /// Pods of a workload that no node takes, and why the first of them is not taken.
    fn unschedulable(&self, namespace: Option<&str>, selector: &BTreeMap<String, String>) -> (i32, Option<String>) {
        let prefix = format!("{}/", namespace.unwrap_or_default());
        let (mut count, mut first) = (0, None);
        for (name, pod) in self.seen.pods.rows().iter() {
            let Some((why, labels)) = &pod.unschedulable else { continue };
            if name.starts_with(&prefix) && selector.iter().all(|(k, v)| labels.get(k) == Some(v)) {
                count += 1;
                first.get_or_insert_with(|| why.clone());
            }
        }
        (count, first)
    }
}

/// Whether a Bundle needs hands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It is as it should be.
    None,
    /// It does, but not so soon after the last time.
    Soon,
    /// Now.
    Now,
}

/// New, changed, drifted, failed before, or not looked at for long.
fn need(held: Option<&Held>, live: &Live, bundle: &DesiredBundle) -> Need {
    let rested = |held: &Held| if held.rested() { Need::Now } else { Need::Soon };
    match held {
        _ if bundle.suspend => Need::None,
        None => Need::Now,
        // A new revision waits for nothing but a failing member.
        Some(held) if held.revision != bundle.revision && held.streak < 3 => Need::Now,
        Some(held) if held.revision != bundle.revision || !held.failures.is_empty() => rested(held),
        Some(held) => {
            let age = held.at.map_or(PERIOD, |at| at.elapsed());
            let sights = held.objects.iter().map(|object| live.sight(object));
            sights.fold(if age >= PERIOD { Need::Now } else { Need::None }, |need, sight| match sight {
                Sight::Missing if age < SHOWS_WITHIN && need == Need::None => Need::Soon,
                Sight::Missing | Sight::Drifted(_) if need != Need::Now => rested(held),
                _ => need,
            })
        }
    }
}
