//! Keeps the names asked that tables use: each again when it is time, many at once, none twice at once.
//!
//! In: the names that are wanted. Out: what they lead to, told whenever that changes. Says in the log what is refused, and where a name that
//! was answered is not any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ask::Asker;
use super::state::{Answered, State};
use super::{Found, Leads, NameSettings};
use crate::metrics::Metrics;

/// So many names are asked at once.
const AT_ONCE_MAX: usize = 64;
/// Where nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// The names in use.
#[derive(Debug)]
pub(crate) struct Names {
    settings: NameSettings,
    wanted: watch::Sender<Arc<BTreeSet<Arc<str>>>>,
    found: watch::Sender<Arc<Found>>,
    states: Mutex<BTreeMap<Arc<str>, State>>,
    /// What they led to in the life before.
    before: OnceLock<Arc<Found>>,
}

impl Names {
    pub(crate) fn new(settings: NameSettings) -> Self {
        Self {
            settings,
            wanted: watch::Sender::default(),
            found: watch::Sender::default(),
            states: Mutex::default(),
            before: OnceLock::new(),
        }
    }

    /// What names led to in the life before is used until they are answered.
    pub(crate) fn remember(&self, before: &Arc<Found>) {
        // It has one life before.
        let _ = self.before.set(Arc::clone(before));
    }

    /// From now on these names are kept asked and no others.
    pub(crate) fn want(&self, names: &BTreeSet<Arc<str>>) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = **wanted != *names;
            if is_other {
                *wanted = Arc::new(names.clone());
            }
            is_other
        });
    }

    /// What they lead to, as far as they were asked.
    pub(crate) fn found(&self) -> watch::Receiver<Arc<Found>> {
        self.found.subscribe()
    }

    /// Waits until each of them was asked once, and no longer than that.
    pub(crate) async fn until_asked(&self, names: &BTreeSet<Arc<str>>, max: Duration) {
        let mut found = self.found.subscribe();
        let all = found.wait_for(|found| names.iter().all(|name| found.contains_key(name)));
        let _ = tokio::time::timeout(max, all).await;
    }

    /// What is known of a name, for people.
    pub(crate) fn view(&self, name: &Arc<str>, now: Instant) -> Value {
        let found = self.found.borrow().get(name).cloned();
        let (Some(found), Some(state)) =
            (found, self.states().get(name).map(|s| (s.again, s.until(), s.trouble.clone())))
        else {
            return json!({"name": &**name, "note": "it is asked for the first time"});
        };
        let (again, until, trouble) = state;
        let seconds = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now).as_secs_f64().ceil());
        let mut said = json!({"name": &**name, "addresses": &found.addresses, "askedAgainInSeconds": seconds(again)});
        if !found.refused.is_empty() {
            let refused = found.refused.iter().map(|(ip, why)| json!({"address": ip, "why": why}));
            said["refused"] = refused.collect();
        }
        if let Some(trouble) = trouble {
            said["trouble"] = trouble.into();
            said["usedForSeconds"] = seconds(until).into();
        }
        if found.addresses.is_empty() && found.refused.is_empty() {
            said["note"] = "it leads nowhere: there are no addresses of that name".into();
        }
        said
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until `shutdown`; says in `metrics` how the names stand.
    pub(crate) async fn follow(self: Arc<Self>, asker: Asker, metrics: Metrics, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.go(Arc::new(asker), &metrics)).await;
    }

    async fn go(&self, asker: Arc<Asker>, metrics: &Metrics) {
        let mut wanted = self.wanted.subscribe();
        let mut asking = JoinSet::new();
        let mut asked = BTreeSet::new();
        loop {
            self.settle(&wanted.borrow_and_update().clone());
            self.count(metrics);
            let now = Instant::now();
            let mut next = now + IDLE;
            for (name, state) in &*self.states() {
                if asked.contains(name) || asked.len() >= AT_ONCE_MAX {
                    continue;
                }
                match state.again {
                    Some(again) if again > now => next = next.min(again),
                    _ => {
                        asked.insert(Arc::clone(name));
                        asking.spawn(one(Arc::clone(&asker), self.settings.clone(), Arc::clone(name)));
                    }
                }
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                Some(done) = asking.join_next(), if !asking.is_empty() => {
                    // What panics is a bug of ours: the gateway ends as it does where any task of it breaks.
                    let (name, answered) = match done {
                        Ok(done) => done,
                        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
                    };
                    asked.remove(&name);
                    self.note(&asker, name, &answered).await;
                }
                () = sleep_until(next) => {}
            }
        }
    }

    fn count(&self, metrics: &Metrics) {
        let (states, mut counts) = (self.states(), [("answered", 0), ("failing", 0), ("new", 0)]);
        for state in states.values() {
            let at = if state.trouble.is_some() { 1 } else { usize::from(state.again.is_none()) * 2 };
            counts[at].1 += 1;
        }
        counts.iter().for_each(|(state, count)| metrics.names.with_label_values(&[state]).set(*count));
    }

    /// Forgets names that nobody wants any more, and begins with those that are new.
    fn settle(&self, wanted: &BTreeSet<Arc<str>>) {
        let mut states = self.states();
        states.retain(|name, _| wanted.contains(name));
        let mut known = Vec::new();
        for name in wanted.iter().filter(|name| !states.contains_key(*name)).cloned().collect::<Vec<_>>() {
            let before = self.before.get().and_then(|before| before.get(&name));
            let state = before.map(|leads| State::remembered(&leads.addresses, Instant::now())).unwrap_or_default();
            if before.is_some() {
                known.push((Arc::clone(&name), Arc::new(state.leads(&self.settings, |_| true))));
            }
            states.insert(name, state);
        }
        drop(states);
        self.found.send_if_modified(|found| {
            let differs = !known.is_empty() || found.keys().any(|name| !wanted.contains(name));
            if differs {
                let found = Arc::make_mut(found);
                found.retain(|name, _| wanted.contains(name));
                found.extend(known);
            }
            differs
        });
    }

    /// Takes an answer.
    async fn note(&self, asker: &Asker, name: Arc<str>, answered: &[Answered; 2]) {
        let ways = Ways::of(asker, answered).await;
        let now = Instant::now();
        let leads = {
            let mut states = self.states();
            // Nobody wants it any more.
            let Some(state) = states.get_mut(&name) else { return };
            let before = state.trouble.is_some();
            state.note(answered, now);
            tell(&name, before, state.trouble.as_deref());
            Arc::new(state.leads(&self.settings, |ip| if ip.is_ipv4() { ways.v4 } else { ways.v6 }))
        };
        self.found.send_if_modified(|found| {
            let before = found.get(&name);
            if before.is_some_and(|before| *before == leads) {
                return false;
            }
            refused(&name, before.map(|b| &**b), &leads);
            Arc::make_mut(found).insert(name, leads);
            true
        });
    }
}

/// To which families there is a way.
struct Ways {
    v4: bool,
    v6: bool,
}

impl Ways {
    async fn of(asker: &Asker, answered: &[Answered; 2]) -> Self {
        let [a, aaaa] = answered;
        let first = |answered: &Answered| answered.as_ref().ok().and_then(|answer| answer.addresses.first().copied());
        let mut ways = Self { v4: true, v6: true };
        if let (Some(v4), Some(v6)) = (first(a), first(aaaa)) {
            (ways.v4, ways.v6) = tokio::join!(asker.reaches(v4), asker.reaches(v6));
        }
        ways
    }
}

async fn one(asker: Arc<Asker>, settings: NameSettings, name: Arc<str>) -> (Arc<str>, [Answered; 2]) {
    let servers = settings.ask_of().await;
    let (a, aaaa) =
        tokio::join!(asker.ask(&servers, &name, RecordType::A), asker.ask(&servers, &name, RecordType::AAAA));
    (name, [a, aaaa])
}

/// Says once that a name is not answered, and once that it is again.
fn tell(name: &str, before: bool, now: Option<&str>) {
    match (before, now) {
        (false, Some(why)) => {
            tracing::warn!(name, why, "the name of a backend is not answered: what it led to is used on")
        }
        (true, None) => tracing::info!(name, "the name of a backend is answered again"),
        _ => {}
    }
}

fn refused(name: &str, before: Option<&Leads>, now: &Leads) {
    if !now.refused.is_empty() && before.is_none_or(|before| before.refused != now.refused) {
        let refused = now.refusals();
        tracing::warn!(name, refused, "the name of a backend leads where it may not: these addresses are not used");
    }
}
