//! What the leader does: orders what is due, some at once, tries again later what failed, and says how it stands.
//!
//! In: what is wanted, the ledger. Out: Secrets, and [`Standing`]. Whoever drops it ends everything that is under way; the next leader goes on
//! from the ledger. Bounds: orders at once, pauses after failures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::Account;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::client::Way;
use super::due::{Due, Facts, due};
use super::failure::{Failure, pause, pause_all};
use super::leader::Acme;
use super::ledger::{Ledger, Record, name};
use super::order::{Ordering, clear};
use super::renewals::Renewals;
use super::standing::{Standing, State};
use super::wanted::Wanted;
use super::{account, secret};
use crate::objects::Name;

/// Orders at once.
const ORDERS_MAX: usize = 8;
/// It is looked at everything at least so often: machines sleep, and clocks are set.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// When something of the hub's API went wrong, or nothing was decided.
const SOON: Duration = Duration::from_secs(2);
/// What was written is seen within this time.
const SEEN_MAX: Duration = Duration::from_secs(30);
/// So often nothing may be decided in a row.
const AGAIN_MAX: u32 = 10;

/// Goes on with what the leader before us did.
pub(super) async fn lead(acme: &Arc<Acme>, way: &Way) {
    let ledger = Ledger::new(&acme.client, acme.fleet.lease());
    let records = match ledger.read().await {
        Ok(records) => records,
        Err(error) => {
            tracing::warn!(%error, "orders of certificates can't be read yet");
            return sleep(SOON).await;
        }
    };
    let open: Vec<String> = records.values().filter(|r| r.url.is_some()).map(|r| name(&r.secret)).collect();
    clear(acme, |order| open.iter().any(|open| open == order)).await;
    let session = Session {
        acme: Arc::clone(acme),
        way: way.clone(),
        ledger,
        records,
        account: None,
        halted: None,
        halts: 0,
        known: BTreeMap::new(),
        waits: BTreeMap::new(),
        renewals: Renewals::default(),
        running: BTreeMap::new(),
        orders: JoinSet::new(),
    };
    Box::pin(session.go()).await;
}

/// A certificate, as it was written or seen last.
struct Known {
    secret: Arc<Secret>,
    facts: Option<Facts>,
    /// Until when it counts although it is not seen yet.
    unseen: Option<Timestamp>,
}

struct Session {
    acme: Arc<Acme>,
    way: Way,
    ledger: Ledger,
    records: BTreeMap<Name, Record>,
    account: Option<Account>,
    /// Until when nothing is asked of the CA, and why.
    halted: Option<(Timestamp, String)>,
    /// In a row.
    halts: u32,
    /// Certificates as they were looked at last.
    known: BTreeMap<Name, Known>,
    /// What waits although it is due, how often it did, and why.
    waits: BTreeMap<Name, (Timestamp, u32, Option<String>)>,
    renewals: Renewals,
    running: BTreeMap<Name, AbortHandle>,
    orders: JoinSet<(Name, Result<Secret, Failure>)>,
}

impl Session {
    async fn go(mut self) {
        let mut changes = self.acme.wanted.clone();
        loop {
            let wanted = changes.borrow_and_update().clone();
            let mut next = None;
            if let Some(wanted) = &wanted {
                self.forget(wanted).await;
                next = self.start(wanted).await;
                self.tell(wanted);
            }
            let left = next.map(|at| at.duration_since(Timestamp::now()));
            let left = left.and_then(|left| Duration::try_from(left.max(SignedDuration::from_millis(10))).ok());
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(done) = self.orders.join_next() => if let Ok((name, done)) = done { self.done(name, done).await },
                () = self.renewals.heard(), if self.renewals.is_asking() => {}
                () = sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
            }
        }
    }

    /// Forgets what nobody wants any more, or wants otherwise.
    async fn forget(&mut self, wanted: &[Wanted]) {
        let by_name: BTreeMap<&Name, &Wanted> =
            wanted.iter().filter(|w| w.problem.is_none()).map(|w| (&w.secret, w)).collect();
        let directory = &self.acme.settings.directory;
        let is_over = |record: &&Record| {
            let same = |w: &&Wanted| w.hosts == record.hosts && record.directory == *directory;
            !by_name.get(&record.secret).is_some_and(same)
        };
        let over: Vec<Name> = self.records.values().filter(is_over).map(|record| record.secret.clone()).collect();
        for secret in &over {
            if let Some(running) = self.running.remove(secret) {
                running.abort();
            }
            self.records.remove(secret);
            self.ledger.forget(secret).await;
        }
        if !over.is_empty() {
            let gone: Vec<String> = over.iter().map(name).collect();
            clear(&self.acme, |order| gone.iter().all(|gone| gone != order)).await;
        }
        let is_wanted = |name: &Name| by_name.contains_key(name);
        self.known.retain(|name, _| is_wanted(name));
        self.waits.retain(|name, _| is_wanted(name));
        self.renewals.retain(is_wanted);
    }

    /// Starts what is due, as much as may be. Returns when to look again.
    async fn start(&mut self, wanted: &[Wanted]) -> Option<Timestamp> {
        let now = Timestamp::now();
        let halted = self.halted.as_ref().map(|(until, _)| *until).filter(|until| *until > now);
        let mut next: Option<Timestamp> = halted;
        let mut sooner = |at: Timestamp| next = Some(next.map_or(at, |next| next.min(at)));
        for wanted in wanted.iter().filter(|w| w.problem.is_none()) {
            if self.is_foreign(wanted) || self.running.contains_key(&wanted.secret) {
                continue;
            }
            if let Some(at) = self.due(wanted, now) {
                sooner(at);
                self.known.get(&wanted.secret).and_then(|known| known.unseen).into_iter().for_each(&mut sooner);
                if self.is_to_ask(wanted, now) && halted.is_none() && self.has_account().await {
                    self.ask(wanted);
                }
                self.renewals.again(&wanted.secret).filter(|at| *at > now).into_iter().for_each(&mut sooner);
                continue;
            }
            let later = self.later(&wanted.secret).filter(|at| *at > now);
            if let Some(later) = later {
                sooner(later);
            } else if halted.is_none() && self.orders.len() < ORDERS_MAX {
                if !self.has_account().await {
                    return self.halted.as_ref().map(|(until, _)| *until);
                }
                self.order(wanted);
            }
        }
        next
    }

    /// When a certificate is due; nothing: now.
    fn due(&mut self, wanted: &Wanted, now: Timestamp) -> Option<Timestamp> {
        let window = self.renewals.window(&wanted.secret);
        let directory = self.acme.settings.directory.clone();
        match due(&wanted.hosts, self.facts(wanted), &directory, window, now) {
            Due::Now { .. } => None,
            Due::At(at) => Some(at),
        }
    }

    /// What the certificate is that is there, or was written a moment ago.
    fn facts(&mut self, wanted: &Wanted) -> Option<&Facts> {
        let known = self.known.get(&wanted.secret);
        let unseen = known.and_then(|known| known.unseen).is_some_and(|until| until > Timestamp::now());
        match &wanted.held {
            Some(held) if known.is_none_or(|known| is_other(held, &known.secret, unseen)) => {
                let (secret, facts) = (Arc::clone(held), Facts::of(held).ok());
                self.known.insert(wanted.secret.clone(), Known { secret, facts, unseen: None });
            }
            None if !unseen => drop(self.known.remove(&wanted.secret)),
            _ => {}
        }
        self.known.get(&wanted.secret)?.facts.as_ref()
    }

    /// Whether the CA is to be asked when to renew.
    fn is_to_ask(&mut self, wanted: &Wanted, now: Timestamp) -> bool {
        let leaf = self.facts(wanted).map(|facts| facts.leaf.clone());
        leaf.is_some_and(|leaf| self.renewals.is_to_ask(&wanted.secret, &leaf, now))
    }

    fn ask(&mut self, wanted: &Wanted) {
        if let Some(account) = &self.account {
            self.renewals.ask(account.clone(), &wanted.secret);
        }
    }

    fn is_foreign(&self, wanted: &Wanted) -> bool {
        wanted.held.as_ref().is_some_and(|held| !secret::is_ours(held))
    }

    /// Until when something that is due waits.
    fn later(&self, secret: &Name) -> Option<Timestamp> {
        let failed = self.records.get(secret).and_then(|record| record.next);
        failed.max(self.waits.get(secret).map(|(at, _, _)| *at))
    }

    /// Whether there is an account; if not, why is said.
    async fn has_account(&mut self) -> bool {
        let is_halted = self.halted.as_ref().is_some_and(|(until, _)| *until > Timestamp::now());
        if self.account.is_some() || is_halted {
            return !is_halted;
        }
        match account::open(&self.acme, &self.way).await {
            Ok(account) => (self.account, self.halts) = (Some(account), 0),
            Err(failure) => self.halt(failure.why().to_owned()),
        }
        self.account.is_some()
    }

    fn halt(&mut self, why: String) {
        self.halts += 1;
        let pause = pause_all(self.halts).max(self.way.alone().unwrap_or_default());
        tracing::warn!(directory = self.acme.settings.directory, why, again_s = pause.as_secs(), "no word with the CA");
        self.halted = Some((after(pause), why));
    }

    fn order(&mut self, wanted: &Wanted) {
        let Some(account) = self.account.clone() else { return };
        let record = self.records.entry(wanted.secret.clone()).or_insert_with(|| Record {
            secret: wanted.secret.clone(),
            hosts: wanted.hosts.clone(),
            directory: self.acme.settings.directory.clone(),
            ..Record::default()
        });
        let ordering = Ordering {
            acme: Arc::clone(&self.acme),
            account,
            ledger: self.ledger.clone(),
            wanted: wanted.clone(),
            record: record.clone(),
            // Where the CA says when to renew, it takes what is renewed, too.
            replaces: self.renewals.replaced(&wanted.secret),
        };
        tracing::info!(secret = format!("{}/{}", wanted.secret.0, wanted.secret.1), hosts = ?wanted.hosts, "orders a certificate");
        let name = wanted.secret.clone();
        let running = self.orders.spawn(async move { (name, Box::pin(ordering.run()).await) });
        self.running.insert(wanted.secret.clone(), running);
    }

    /// An order came to an end.
    async fn done(&mut self, name: Name, done: Result<Secret, Failure>) {
        self.running.remove(&name);
        let at = format!("{}/{}", name.0, name.1);
        let failure = match done {
            Ok(secret) => {
                (self.halted, self.halts) = (None, 0);
                self.records.remove(&name);
                self.waits.remove(&name);
                self.renewals.remove(&name);
                let facts = Facts::of(&secret).ok();
                let until = facts.as_ref().map(|facts| facts.not_after.to_string()).unwrap_or_default();
                tracing::info!(secret = at, until, "certificate issued");
                self.acme.plane.metrics.acme_orders.with_label_values(&["issued"]).inc();
                let unseen = Some(after(SEEN_MAX));
                self.known.insert(name, Known { secret: Arc::new(secret), facts, unseen });
                return;
            }
            Err(failure) => failure,
        };
        tracing::warn!(secret = at, why = failure.why(), "certificate not issued");
        self.acme.plane.metrics.acme_orders.with_label_values(&["failed"]).inc();
        let tries = self.waits.get(&name).map_or(0, |(_, tries, _)| *tries) + 1;
        match failure {
            Failure::Authority(why) => self.halt(why),
            Failure::Account(why) => {
                self.account = None;
                account::forget(&self.acme).await;
                self.waits.insert(name, (after(SOON), tries, Some(why)));
            }
            Failure::Hub(why) => drop(self.waits.insert(name, (after(SOON * tries.min(15)), tries, Some(why)))),
            Failure::Again(_) if tries < AGAIN_MAX => drop(self.waits.insert(name, (after(SOON), tries, None))),
            Failure::Refused(why) | Failure::TooOften(why) | Failure::Taken(why) | Failure::Again(why) => {
                self.refused(name, why).await;
            }
        }
        // What the order kept itself is read again.
        self.reread().await;
    }

    /// The CA does not want to issue it: it is asked again, but ever more seldom.
    async fn refused(&mut self, name: Name, why: String) {
        self.waits.remove(&name);
        let Some(record) = self.records.get_mut(&name) else { return };
        record.failures += 1;
        let pause = pause(record.failures).max(self.way.alone().unwrap_or_default());
        (record.url, record.key, record.problem, record.next) = (None, None, Some(why), Some(after(pause)));
        let record = record.clone();
        if let Err(failure) = self.ledger.keep(&record).await {
            tracing::debug!(why = failure.why(), "a failed order is not kept");
        }
        let own = super::ledger::name(&name);
        clear(&self.acme, |order| order != own).await;
    }

    /// Takes over what orders that are not under way have kept.
    async fn reread(&mut self) {
        let Ok(kept) = self.ledger.read().await else { return };
        for (name, record) in kept {
            if !self.running.contains_key(&name) && self.records.contains_key(&name) {
                self.records.insert(name, record);
            }
        }
    }

    /// Says how everything stands.
    fn tell(&mut self, wanted: &[Wanted]) {
        let states: Vec<State> = wanted.iter().map(|wanted| self.state(wanted)).collect();
        let failing = &self.acme.plane.metrics.acme_failing;
        failing.reset();
        for (wanted, _) in wanted.iter().zip(&states).filter(|(_, state)| matches!(state, State::Failing { .. })) {
            failing.with_label_values(&[&format!("{}/{}", wanted.secret.0, wanted.secret.1)]).set(1);
        }
        let standing = Standing::of(wanted.iter().zip(states));
        self.acme.standing.send_if_modified(|said| {
            let is_other = *said != standing;
            *said = standing;
            is_other
        });
    }

    fn state(&mut self, wanted: &Wanted) -> State {
        let failing = |why: String, again, is_there| State::Failing { why, again, is_there };
        if let Some(problem) = &wanted.problem {
            return failing(problem.clone(), None, false);
        }
        if self.is_foreign(wanted) {
            return failing(secret::FOREIGN.to_owned(), None, true);
        }
        let now = Timestamp::now();
        let window = self.renewals.window(&wanted.secret);
        let directory = self.acme.settings.directory.clone();
        let is_there = match due(&wanted.hosts, self.facts(wanted), &directory, window, now) {
            Due::At(_) => return State::Current,
            Due::Now { fits } => fits,
        };
        if let Some((until, why)) = self.halted.as_ref().filter(|_| !self.running.contains_key(&wanted.secret)) {
            return failing(format!("no word with the CA: {why}"), Some(*until), is_there);
        }
        let record = self.records.get(&wanted.secret);
        if let Some((why, next)) = record.and_then(|record| Some((record.problem.as_ref()?, record.next?))) {
            return failing(why.clone(), Some(next), is_there);
        }
        match self.waits.get(&wanted.secret) {
            Some((at, _, Some(why))) => failing(why.clone(), Some(*at), is_there),
            _ if is_there => State::Current,
            _ => State::Ordering,
        }
    }
}

/// Whether what is held is another than what is known. `unseen`: what is known was written a moment ago, and may not be seen yet.
fn is_other(held: &Arc<Secret>, known: &Arc<Secret>, unseen: bool) -> bool {
    let version = |secret: &Secret| secret.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
    let is_older = version(held).zip(version(known)).is_some_and(|(held, known)| held < known);
    let is_to_come = unseen && is_older;
    !(Arc::ptr_eq(held, known) || is_to_come)
}

pub(super) fn after(pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX)
}
