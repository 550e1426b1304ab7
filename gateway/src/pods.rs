//! Labels of the pods of the hub's own API, where TrafficPolicies tell endpoints of its Services apart by them. Members tell theirs themselves.
//!
//! In: which keys are wanted in which namespaces, a watch of pods' metadata that is there only while any are. Out: the labels, told whenever they
//! change. An API server without pods has none. A hub that is dead changes nothing: the labels as they were last good stand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::ordered::Ordered;
use atoll_api::topology::Topology;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_kind};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::objects::{Name, Objects, name_of};
use crate::watch::Again;

/// Pods by name, with those of their labels that are wanted.
pub(crate) type Labelled = Ordered<Name, Arc<BTreeMap<String, String>>>;

/// Keys by namespace.
pub(crate) type Wanted = BTreeMap<String, BTreeSet<String>>;

/// What is known of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) labelled: Labelled,
    /// They were listed in this life.
    listed: bool,
}

/// The pods of the hub's own API.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    wanted: watch::Sender<Wanted>,
    known: watch::Sender<Known>,
}

/// What policies want to know of pods: the keys by which subsets of the hub's own Services are told apart.
pub(crate) fn wanted(objects: &Objects, topology: &Topology) -> Wanted {
    let mut wanted = Wanted::new();
    for (at, spec) in topology.traffic.iter().filter(|(_, spec)| !spec.subsets.is_empty()) {
        let Some(service) = &spec.service else { continue };
        if objects.services.get(&at.namespace, service).is_some() {
            let keys = spec.subsets.iter().flat_map(|subset| subset.labels.keys().cloned());
            wanted.entry(at.namespace.clone()).or_default().extend(keys);
        }
    }
    wanted
}

impl Pods {
    /// What was last good is used until pods are listed.
    pub(crate) fn remember(&self, before: &Labelled) {
        self.known.send_replace(Known { labelled: before.clone(), listed: false });
    }

    /// From now on these labels are followed and no others.
    pub(crate) fn want(&self, now: Wanted) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = *wanted != now;
            *wanted = now;
            is_other
        });
    }

    /// What is known of them, told at every change.
    pub(crate) fn known(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// Waits until they are listed, and no longer than that.
    pub(crate) async fn until_listed(&self, max: Duration) {
        let mut known = self.known.subscribe();
        let _ = tokio::time::timeout(max, known.wait_for(|known| known.listed)).await;
    }

    /// Follows them until `shutdown`.
    pub(crate) async fn follow(self: Arc<Self>, client: Client, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.go(client)).await;
    }

    async fn go(&self, client: Client) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let now = wanted.borrow_and_update().clone();
            if now.is_empty() {
                self.known.send_if_modified(|known| std::mem::take(&mut known.listed) && forget(known));
            }
            tokio::select! {
                () = self.watch(client.clone(), &now), if !now.is_empty() => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Watches for ever.
    async fn watch(&self, client: Client, wanted: &Wanted) {
        let api: Api<PartialObjectMeta<Pod>> = Api::all(client);
        let mut events = std::pin::pin!(watch_kind(api, watcher::Config::default()).backoff(Again::default()));
        let mut coming = Labelled::default();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => coming = Labelled::default(),
                Ok(Event::InitApply(pod)) => {
                    put(&mut coming, &pod, wanted);
                }
                Ok(Event::InitDone) => {
                    let labelled = std::mem::take(&mut coming);
                    self.known.send_replace(Known { labelled, listed: true });
                }
                Ok(Event::Apply(pod)) => {
                    self.known.send_if_modified(|known| put(&mut known.labelled, &pod, wanted));
                }
                Ok(Event::Delete(pod)) => {
                    self.known.send_if_modified(|known| known.labelled.remove(&name_of(&pod)).is_some());
                }
                // It has no pods.
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => {
                    self.known.send_if_modified(|known| !std::mem::replace(&mut known.listed, true));
                }
                Err(error) => {
                    tracing::warn!(%error, "pods can't be followed, by whose labels subsets of Services are told apart");
                }
            }
        }
    }
}

fn forget(known: &mut Known) -> bool {
    *known = Known::default();
    true
}

/// Puts in what is wanted of a pod. Returns whether that changed anything.
fn put(all: &mut Labelled, pod: &PartialObjectMeta<Pod>, wanted: &Wanted) -> bool {
    let name = name_of(pod);
    let keys = wanted.get(&name.0);
    let own = pod.labels().iter().filter(|(key, _)| keys.is_some_and(|keys| keys.contains(*key)));
    let own: BTreeMap<String, String> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    if own.is_empty() {
        return all.remove(&name).is_some();
    }
    let is_other = all.get(&name).is_none_or(|known| **known != own);
    if is_other {
        all.insert(name, Arc::new(own));
    }
    is_other
}
