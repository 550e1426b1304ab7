//! What the hub holds of its members in memory: what they report, how they beat, what they are to do.
//!
//! A member's facts outlive its connection: an absent agent is no deletion. What it is to do is put together from parts (bundles,
//! copies, sites), each with an owner that replaces it whole; nothing is sent before every owner has spoken once, so that
//! a hub that has just started never takes away what it has not yet thought about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atoll_api::facts::{Change, Facts, key};
use atoll_api::names::ClusterName;
use atoll_api::topology::MemberFacts;
use atoll_reach::{Peer, Serial};
use atoll_wire::delta::{Receiver, Refused};
use atoll_wire::v1;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The parts of what a member is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Bundles,
    Copies,
    Sites,
}

const PARTS: usize = 3;

/// How a member beats.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    /// When anything was heard last.
    pub(crate) heard: Option<Instant>,
    /// When its API server last answered its agent.
    pub(crate) good: Option<Instant>,
    /// Since when it has been so without a gap.
    pub(crate) good_since: Option<Instant>,
    /// When its DNS last answered.
    pub(crate) dns_good: Option<Instant>,
    /// Why not, in the agent's words.
    pub(crate) reason: String,
}

impl Beat {
    /// Takes a heartbeat.
    pub(crate) fn take(&mut self, api_ok: bool, dns_ok: bool, reason: String, now: Instant, missed: Duration) {
        self.heard = Some(now);
        self.reason = reason;
        if api_ok {
            let gap = !self.is_good(now, missed);
            if gap {
                self.good_since = Some(now);
            }
            self.good = Some(now);
        }
        if dns_ok {
            self.dns_good = Some(now);
        }
    }

    /// Whether the member's API server answered within two intervals.
    pub(crate) fn is_good(&self, now: Instant, missed: Duration) -> bool {
        self.good.is_some_and(|good| now.saturating_duration_since(good) <= missed)
    }

    /// Whether its DNS did.
    pub(crate) fn is_dns_good(&self, now: Instant, missed: Duration) -> bool {
        self.dns_good.is_some_and(|good| now.saturating_duration_since(good) <= missed)
    }
}

/// The connection of a member's agent.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    pub(crate) id: u64,
    pub(crate) agent_version: String,
    pub(crate) peer: Peer,
    /// Ends the session.
    pub(crate) end: CancellationToken,
}

/// What of a report is another than when it was last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// All of it.
    pub(crate) all: bool,
    /// These facts.
    pub(crate) keys: BTreeSet<String>,
}

/// More news than this is all.
const NEWS_MAX: usize = 8192;

impl News {
    pub(crate) fn add(&mut self, change: &Change) {
        self.all |= change.full || self.keys.len() + change.upserts.len() + change.removed.len() > NEWS_MAX;
        if self.all {
            self.keys.clear();
        } else {
            self.keys.extend(change.upserts.keys().chain(&change.removed).cloned());
        }
    }
}

/// What a member reported, with the news in it.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) cluster: ClusterName,
    /// `None`: nothing since the hub started, or it is no member any more.
    pub(crate) facts: Option<Facts>,
    pub(crate) news: News,
}

/// One member.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub(crate) facts: Receiver,
    /// What it says of itself, out of its facts.
    pub(crate) about: Arc<MemberFacts>,
    pub(crate) status: Receiver,
    pub(crate) beat: Beat,
    pub(crate) connected: Option<Connected>,
    /// Certificates that were issued since the hub started, with their end of validity.
    pub(crate) issued: Vec<(Serial, Timestamp)>,
    desired: BTreeMap<Part, Facts>,
}

impl Member {
    /// Whether it has reported in full since the hub started.
    pub(crate) fn has_reported(&self) -> bool {
        self.facts.version().is_some() || !self.facts.facts().is_empty()
    }

    /// Takes a message about its facts; gives the change once it is complete.
    fn take(&mut self, delta: v1::Delta) -> Result<Option<Change>, Refused> {
        let change = self.facts.take(delta)?;
        if change.as_ref().is_some_and(|c| c.full || c.upserts.contains_key(key::MEMBER)) {
            self.about = Arc::new(self.facts.facts().get(key::MEMBER).unwrap_or_default());
        }
        Ok(change)
    }

    /// What it is to do; `None` until every part was thought about.
    pub(crate) fn desired(&self) -> Option<Facts> {
        if self.desired.len() < PARTS {
            return None;
        }
        let mut all = Facts::default();
        for (key, json) in self.desired.values().flat_map(Facts::iter) {
            all.put_json(key.to_owned(), json.clone());
        }
        Some(all)
    }
}

/// All members. Locks are held for a moment and never over an await.
pub(crate) struct Sessions {
    members: Mutex<BTreeMap<ClusterName, Member>>,
    news: Mutex<BTreeMap<ClusterName, News>>,
    reported: watch::Sender<u64>,
    changed: watch::Sender<u64>,
    desired: watch::Sender<u64>,
    next: std::sync::atomic::AtomicU64,
    /// When the hub started to listen.
    pub(crate) started: Instant,
    /// A heartbeat later than this is missed: two intervals and a little.
    pub(crate) missed: Duration,
}

impl Sessions {
    /// Nobody yet; agents are asked to beat each `heartbeat`.
    pub(crate) fn new(heartbeat: Duration) -> Self {
        Self {
            members: Mutex::default(),
            news: Mutex::default(),
            reported: watch::Sender::new(0),
            changed: watch::Sender::new(0),
            desired: watch::Sender::new(0),
            next: std::sync::atomic::AtomicU64::new(1),
            started: Instant::now(),
            missed: heartbeat * 2 + heartbeat / 10,
        }
    }

    /// The members, locked.
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<ClusterName, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message about a member's facts; `None` where it is no member any more. Whether anything changed is told to whoever
    /// listens.
    pub(crate) fn report(&self, name: &ClusterName, delta: v1::Delta) -> Option<Result<(), Refused>> {
        let (taken, is_first) = {
            let mut members = self.lock();
            let member = members.get_mut(name)?;
            let was_silent = !member.has_reported();
            (member.take(delta), was_silent && member.has_reported())
        };
        let change = match taken {
            Ok(Some(change)) => change,
            Ok(None) => return Some(Ok(())),
            Err(refused) => return Some(Err(refused)),
        };
        let services = [key::SERVICE, key::ENDPOINTS, key::EXPORT, key::BALANCER];
        let of_services = |k: &String| k.split_once('/').is_some_and(|(word, _)| services.contains(&word));
        let elsewhere = !change.upserts.keys().chain(&change.removed).all(of_services);
        self.tell(name, &change);
        if is_first || change.full || elsewhere {
            self.touch();
        }
        Some(Ok(()))
    }

    fn tell(&self, name: &ClusterName, change: &Change) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().add(change);
        self.reported.send_modify(|n| *n += 1);
    }

    /// What members reported since this was last asked. For one reader.
    pub(crate) fn news(&self) -> Vec<Report> {
        // What comes in between is told the next time once more.
        let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
        let members = self.lock();
        let reports = news.into_iter().map(|(cluster, news)| {
            let held = members.get(&cluster).filter(|member| member.has_reported());
            Report { facts: held.map(|member| member.facts.facts().clone()), cluster, news }
        });
        reports.collect()
    }

    /// Tells of [`Self::news`].
    pub(crate) fn reports(&self) -> watch::Receiver<u64> {
        self.reported.subscribe()
    }

    /// Tells of changes of members, statuses and connections (not of every heartbeat, nor of what services have).
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells of changes of what members are to do.
    pub(crate) fn desired_changes(&self) -> watch::Receiver<u64> {
        self.desired.subscribe()
    }

    /// Says that something changed.
    pub(crate) fn touch(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// Registers the connection of a member's agent; an older one of the same member is ended.
    pub(crate) fn connect(&self, name: &ClusterName, agent_version: String, peer: Peer, end: CancellationToken) -> u64 {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let old = {
            let mut members = self.lock();
            let member = members.entry(name.clone()).or_default();
            member.connected.replace(Connected { id, agent_version, peer, end })
        };
        if let Some(old) = old {
            old.end.cancel();
        }
        self.touch();
        id
    }

    /// Takes the connection out again, unless another has taken its place.
    pub(crate) fn disconnect(&self, name: &ClusterName, id: u64) {
        if let Some(member) = self.lock().get_mut(name)
            && member.connected.as_ref().is_some_and(|c| c.id == id)
        {
            member.connected = None;
        }
        self.touch();
    }

    /// Replaces one part of what each member is to do; members that are not named get an empty part.
    pub(crate) fn set_desired(&self, part: Part, mut by_member: BTreeMap<ClusterName, Facts>) {
        let mut changed = false;
        {
            let mut members = self.lock();
            for name in by_member.keys() {
                if !members.contains_key(name) {
                    members.insert(name.clone(), Member::default());
                }
            }
            for (name, member) in members.iter_mut() {
                let facts = by_member.remove(name).unwrap_or_default();
                let same = member.desired.get(&part).is_some_and(|old| old.digest() == facts.digest());
                if !same {
                    member.desired.insert(part, facts);
                    changed = true;
                }
            }
        }
        if changed {
            self.desired.send_modify(|n| *n += 1);
        }
    }

    /// Forgets members that are no longer wanted and ends their connections. Returns the certificates they had, with their end.
    pub(crate) fn retain(&self, wanted: impl Fn(&ClusterName) -> bool) -> Vec<(Serial, Timestamp)> {
        let gone: Vec<(ClusterName, Member)> = { self.lock().extract_if(.., |name, _| !wanted(name)).collect() };
        let mut certificates = Vec::new();
        for (name, member) in gone {
            self.tell(&name, &Change { full: true, ..Change::default() });
            certificates.extend(member.issued);
            if let Some(c) = member.connected {
                c.end.cancel();
                let until = Timestamp::try_from(c.peer.not_after).unwrap_or(Timestamp::MAX);
                certificates.push((c.peer.serial, until));
            }
        }
        certificates
    }
}
