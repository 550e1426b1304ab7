//! Balancers that others own: what each is told of Gateways and Services of its classes, and what objects are told of that.
//!
//! ```text
//!   objects, topology ─► wanted (pure) ─► driver ─► answer ─► said ─► statuses, Events
//! ```
//!
//! One replica tells and writes, by a Lease of the provider's. A state is told when it is another, when the last telling failed, with growing pauses,
//! and every ten seconds, so that a balancer that began anew is told everything.

mod said;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::provider::Push;
use atoll_api::topology::BalancerState;
use atoll_wire::follow::{Report, Snapshot};
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::objects::Objects;
use crate::provider::{Drive, Links, Settings};
use crate::status::lead::Lead;
use said::Said;
use wanted::{Wanted, wanted};

/// Changes within this time are told together.
const GATHER: Duration = Duration::from_millis(100);
/// So often it is told although nothing changed.
const AGAIN: Duration = Duration::from_secs(10);
/// While one can't be reached, twice as long each time.
const SOON: Duration = Duration::from_millis(500);
const LATE: Duration = Duration::from_secs(30);

/// What following needs.
pub(crate) struct Foreign {
    pub(crate) settings: Settings,
    pub(crate) links: Links,
    pub(crate) client: Client,
    pub(crate) instance: String,
    /// The objects as they were looked at last; nothing before they are known.
    pub(crate) objects: watch::Receiver<Option<Objects>>,
    pub(crate) topology: watch::Receiver<Snapshot>,
    /// What the hub is told of this replica: members' Services among it.
    pub(crate) report: watch::Sender<Report>,
}

impl Foreign {
    /// Tells its balancer until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut drive = match self.settings.make(&self.links) {
            Ok(drive) => drive,
            Err(why) => return tracing::error!(provider = self.settings.name, why, "provider not used"),
        };
        let mut lead = Lead::new(self.client.clone(), format!("atoll-provider-{}", self.settings.name), &self.instance);
        let _ = shutdown.run_until_cancelled(self.go(&mut *drive, &mut lead)).await;
        let _ = tokio::time::timeout(SOON, lead.give_up()).await;
    }

    async fn go(&mut self, drive: &mut dyn Drive, lead: &mut Lead) {
        let mut said = Said::new(self.client.clone());
        let mut stated = BTreeSet::new();
        let (mut last, mut failures, mut due) = (Push::default(), 0_u32, Instant::now());
        if self.objects.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let (objects, wanted) = self.look(&last);
            let is_other = wanted.push.generation != last.generation;
            let mut pause = AGAIN;
            if (is_other || Instant::now() >= due) && lead.holds().await {
                last.clone_from(&wanted.push);
                let told = drive.push(&wanted.push).await.map(|mut answer| {
                    answer.refused.extend(wanted.refused.iter().cloned());
                    answer
                });
                pause = match &told {
                    Ok(_) => {
                        failures = 0;
                        AGAIN
                    }
                    Err(why) => {
                        tracing::warn!(provider = self.settings.name, why, "a balancer is not told yet");
                        failures = (failures + 1).min(8);
                        (SOON * 2_u32.pow(failures)).min(LATE)
                    }
                };
                self.state(&mut stated, said::of_members(&wanted, &told));
                if !said.say(&objects, &wanted, &told).await {
                    pause = pause.min(SOON);
                }
                due = Instant::now() + pause;
            } else if Instant::now() >= due {
                // Another replica tells it, and states what became of that.
                self.state(&mut stated, Some(BTreeMap::new()));
            }
            let wake = if due > Instant::now() { due } else { Instant::now() + pause };
            tokio::select! {
                changed = self.objects.changed() => if changed.is_err() { return },
                changed = self.topology.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(wake) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// States what became of members' Services; nothing: what was said stays. `stated`: what this provider said before.
    fn state(&self, stated: &mut BTreeSet<String>, said: Option<BTreeMap<String, BalancerState>>) {
        let Some(said) = said else { return };
        self.report.send_if_modified(|report| {
            let provided = &mut report.site.provided;
            let gone: Vec<&String> = stated.iter().filter(|name| !said.contains_key(*name)).collect();
            let is_other = !gone.is_empty() || said.iter().any(|(name, state)| provided.get(name) != Some(state));
            gone.into_iter().for_each(|name| drop(provided.remove(name)));
            provided.extend(said.iter().map(|(name, state)| (name.clone(), state.clone())));
            is_other
        });
        *stated = said.into_keys().collect();
    }

    /// What is wanted now, with another generation where it is not what was told last.
    fn look(&mut self, last: &Push) -> (Objects, Wanted) {
        let objects = self.objects.borrow_and_update().clone().unwrap_or_default();
        let topology = Arc::clone(&self.topology.borrow_and_update().topology);
        let mut wanted = wanted(&objects, &topology, &self.settings.name, &self.settings.classes);
        wanted.push.generation = last.generation;
        if wanted.push != *last {
            // Greater than any that a replica before this one told.
            let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
            wanted.push.generation = now.max(last.generation + 1);
        }
        (objects, wanted)
    }
}
