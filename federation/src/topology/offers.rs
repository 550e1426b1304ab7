//! What every member reports of its services, by service: whom a change of one report concerns is looked up, not searched for.
//!
//! In: reports with the news in them, who is a member of which cluster set. Out: the names whose exports or endpoints are to be folded
//! anew, and the exports of a name. Written by the publisher alone; the services controller reads what has moved since it looked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atoll_api::facts::{Facts, key};
use atoll_api::names::{ClusterName, ServiceName};
use atoll_api::topology::{ExportFacts, MemberService};
use tokio::sync::watch;

use crate::sessions::{News, Report};

/// One export of a member, valid or not.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    pub(crate) cluster: ClusterName,
    pub(crate) facts: ExportFacts,
    pub(crate) service: Option<MemberService>,
}

/// Cluster set → exports of one name, the oldest first.
pub(crate) type BySet = BTreeMap<String, Vec<Export>>;

/// The reports of all members.
#[derive(Default)]
pub(crate) struct Offers {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    members: BTreeMap<ClusterName, Offering>,
    /// Who exports a name.
    exporters: BTreeMap<ServiceName, BTreeSet<ClusterName>>,
    /// Names whose exports moved since they were last taken.
    moved: BTreeSet<ServiceName>,
}

#[derive(Default)]
struct Offering {
    /// The set of a cluster that is a member; reports of others wait until they are.
    set: Option<String>,
    /// What it reported; `None`: nothing since the hub started.
    facts: Option<Facts>,
}

/// How a member stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) set: String,
    /// Has not reported since the hub started.
    pub(super) is_silent: bool,
}

/// What is to be folded anew.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) exports: BTreeSet<ServiceName>,
    pub(super) endpoints: BTreeSet<(ClusterName, ServiceName)>,
    /// No members any more.
    pub(super) gone: BTreeSet<ClusterName>,
}

impl Offers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what members report.
    pub(super) fn report(&self, reports: Vec<Report>, touched: &mut Touched) {
        let mut state = self.lock();
        for Report { cluster, facts, news } in reports {
            state.report(&cluster, facts, &news, touched);
        }
    }

    /// Takes who is a member, and of which set.
    pub(super) fn admit(&self, sets: &BTreeMap<ClusterName, String>, touched: &mut Touched) {
        let mut state = self.lock();
        for name in sets.keys() {
            state.members.entry(name.clone()).or_default();
        }
        for (name, offering) in &mut state.members {
            let set = sets.get(name);
            if offering.set.as_ref() == set {
                continue;
            }
            let is_new = offering.set.is_none();
            offering.set = set.cloned();
            touched.exports.extend(offering.names(key::EXPORT));
            if offering.set.is_none() {
                touched.gone.insert(name.clone());
            } else if is_new {
                touched.endpoints.extend(offering.names(key::ENDPOINTS).map(|service| (name.clone(), service)));
            }
        }
        state.members.retain(|_, offering| offering.set.is_some() || offering.facts.is_some());
    }

    /// How every member stands.
    pub(super) fn standing(&self) -> BTreeMap<ClusterName, Standing> {
        let state = self.lock();
        let standing = state.members.iter().filter_map(|(name, o)| {
            let set = o.set.clone()?;
            Some((name.clone(), Standing { set, is_silent: o.facts.is_none() }))
        });
        standing.collect()
    }

    /// What `cluster` reported, if it is a member.
    pub(super) fn facts(&self, cluster: &ClusterName) -> Option<Facts> {
        self.lock().members.get(cluster).filter(|o| o.set.is_some())?.facts.clone()
    }

    /// The members that have reported endpoints of a service.
    pub(super) fn with_endpoints(&self, service: &ServiceName) -> Vec<ClusterName> {
        let at = at(key::ENDPOINTS, service);
        let state = self.lock();
        let has = |o: &Offering| o.set.is_some() && o.facts.as_ref().is_some_and(|f| f.json(&at).is_some());
        state.members.iter().filter(|(_, o)| has(o)).map(|(name, _)| name.clone()).collect()
    }

    /// Tells the services controller that these names are to be looked at.
    pub(super) fn tell(&self, moved: &BTreeSet<ServiceName>) {
        if !moved.is_empty() {
            self.lock().moved.extend(moved.iter().cloned());
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Whether anything was told.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The names told since the last time.
    pub(crate) fn moved(&self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.lock().moved)
    }

    /// Members that have not reported since the hub started: what they export is what the imports say.
    pub(crate) fn silent(&self) -> BTreeSet<ClusterName> {
        let state = self.lock();
        let silent = state.members.iter().filter(|(_, o)| o.set.is_some() && o.facts.is_none());
        silent.map(|(name, _)| name.clone()).collect()
    }

    /// Every name that anybody exports.
    pub(crate) fn names(&self) -> BTreeSet<ServiceName> {
        self.lock().exporters.keys().cloned().collect()
    }

    /// The exports of a name.
    pub(crate) fn exports(&self, name: &ServiceName) -> BySet {
        let state = self.lock();
        let (export, service) = (at(key::EXPORT, name), at(key::SERVICE, name));
        let mut all = BySet::new();
        for cluster in state.exporters.get(name).into_iter().flatten() {
            let Some((set, facts)) =
                state.members.get(cluster).and_then(|o| Some((o.set.as_ref()?, o.facts.as_ref()?)))
            else {
                continue;
            };
            let Some(exported) = facts.get(&export) else { continue };
            let found = Export { cluster: cluster.clone(), facts: exported, service: facts.get(&service) };
            all.entry(set.clone()).or_default().push(found);
        }
        for exports in all.values_mut() {
            exports.sort_by(|a, b| (&a.facts.created, &a.cluster).cmp(&(&b.facts.created, &b.cluster)));
        }
        all
    }
}

impl State {
    fn report(&mut self, cluster: &ClusterName, facts: Option<Facts>, news: &News, touched: &mut Touched) {
        let offering = self.members.entry(cluster.clone()).or_default();
        let words = [key::EXPORT, key::SERVICE, key::ENDPOINTS, key::BALANCER];
        let mut keys: BTreeSet<(&str, ServiceName)> = BTreeSet::new();
        if news.all {
            keys.extend(words.iter().flat_map(|word| offering.names(word).map(|name| (*word, name))));
        }
        offering.facts = facts;
        if news.all {
            keys.extend(words.iter().flat_map(|word| offering.names(word).map(|name| (*word, name))));
        } else {
            let named = |key: &String| {
                let (word, rest) = key.split_once('/')?;
                Some((*words.iter().find(|w| **w == word)?, service(rest)?))
            };
            keys.extend(news.keys.iter().filter_map(named));
        }
        for (word, name) in keys {
            if word == key::EXPORT {
                let exports = offering.facts.as_ref().is_some_and(|f| f.json(&at(key::EXPORT, &name)).is_some());
                if exports {
                    self.exporters.entry(name.clone()).or_default().insert(cluster.clone());
                } else if let Some(others) = self.exporters.get_mut(&name) {
                    others.remove(cluster);
                    if others.is_empty() {
                        self.exporters.remove(&name);
                    }
                }
            }
            if word != key::EXPORT {
                // A service lends its endpoints its addresses.
                touched.endpoints.insert((cluster.clone(), name.clone()));
            }
            if word == key::EXPORT || word == key::SERVICE {
                touched.exports.insert(name);
            }
        }
    }
}

impl Offering {
    fn names<'a>(&'a self, word: &'a str) -> impl Iterator<Item = ServiceName> + 'a {
        self.facts.iter().flat_map(move |facts| facts.under(word)).filter_map(|(rest, _)| service(rest))
    }
}

/// `namespace/name`, and nothing else.
fn service(rest: &str) -> Option<ServiceName> {
    let (namespace, name) = rest.split_once('/').filter(|(_, name)| !name.contains('/'))?;
    Some(ServiceName::new(namespace, name))
}

/// The key under which a member reports.
pub(super) fn at(word: &str, name: &ServiceName) -> String {
    format!("{word}/{}/{}", name.namespace, name.name)
}
