//! The watch of one kind: what is kept of it, and what is told of changes.
//!
//! In: a kind, what of its objects is looked at. Out: what is known of it, whether it was listed in this life, each change. Never ends by
//! itself: a watch that broke is opened again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::known::{Known, fitting};
use crate::metrics::Metrics;
use crate::objects::{Edit, Identify, Kept, Kind, Name, Objects, Shelf, name_of};
use crate::tls::AUTHORITY_KEY;

/// What an object was when `kubectl apply` wrote it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const BACKOFF_MIN: Duration = Duration::from_millis(300);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// With more changes than that at once everything is looked at.
const TOUCHED_MAX: usize = 4096;

/// The objects that changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// More than are told apart, or a kind as a whole.
    pub(super) whole: bool,
    pub(super) names: BTreeSet<(Kind, Name)>,
}

impl Touched {
    pub(super) fn whole(&mut self) {
        self.whole = true;
        self.names.clear();
    }

    pub(super) fn one(&mut self, kind: Kind, name: Name) {
        if self.names.len() >= TOUCHED_MAX {
            self.whole();
        }
        if !self.whole {
            self.names.insert((kind, name));
        }
    }
}

/// One kind: what is known of it, and whether it was listed in this life.
pub(crate) struct Watched<K> {
    pub(crate) known: Known<K>,
    listed: Arc<AtomicBool>,
}

impl<K> Watched<K> {
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    pub(super) fn objects(&self, before: &Shelf<K>) -> Shelf<K> {
        if self.is_listed() { self.known.all() } else { before.clone() }
    }
}

impl<K: Identify + Send + Sync + 'static> Watched<K> {
    /// A kind that is written as `W`, and what follows it for ever; `trim` leaves only what is looked at. `told` gets each object that changed,
    /// and nothing where the kind as a whole did.
    pub(crate) fn open<W>(
        client: &Client,
        metrics: &Metrics,
        config: watcher::Config,
        trim: fn(&mut W),
        told: impl Fn(Option<&W>) + Send + Sync + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static)
    where
        W: Resource + Clone + Into<K> + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        W::DynamicType: Default + Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let known = Known::default();
        let listed = Arc::new(AtomicBool::new(false));
        let (api, kept, seen): (Api<W>, _, _) = (Api::all(client.clone()), Known::clone(&known), Arc::clone(&listed));
        let kind = W::kind(&W::DynamicType::default()).into_owned();
        let failing = metrics.watches_failing.with_label_values(&[&*kind]);
        let following = async move {
            let events = watcher(api, config).backoff(Again::default()).modify(|object| {
                only_own(object.meta_mut());
                trim(object);
            });
            let mut events = std::pin::pin!(events);
            // A list counts once it is complete.
            let mut coming = Shelf::default();
            let mut interrupted = false;
            while let Some(event) = events.next().await {
                let is_broken = event.as_ref().is_err_and(|error| !is_hidden(&kind, error));
                if is_broken != std::mem::replace(&mut interrupted, is_broken) {
                    failing.add(if is_broken { 1 } else { -1 });
                }
                match event {
                    Ok(Event::Init) => coming = Shelf::default(),
                    Ok(Event::InitApply(object)) => drop(coming.set(&name_of(&object), Some(fitting(&object)))),
                    Ok(Event::InitDone) => {
                        kept.replace(std::mem::take(&mut coming));
                        seen.store(true, Ordering::Release);
                        told(None);
                    }
                    Ok(Event::Apply(object)) => {
                        kept.apply(&object);
                        told(Some(&object));
                    }
                    Ok(Event::Delete(object)) => {
                        kept.delete(&object);
                        told(Some(&object));
                    }
                    // It is asked for again, so that one that comes later is seen.
                    Err(error) if is_hidden(&kind, &error) => {
                        if !seen.swap(true, Ordering::AcqRel) {
                            tracing::warn!(kind, "the API server does not show this kind");
                            told(None);
                        }
                    }
                    Err(error) => tracing::warn!(kind, %error, "watch interrupted, goes on"),
                }
            }
        };
        (Self { known, listed }, following)
    }
}

impl<K: Kept> Watched<K> {
    /// Takes over one object as it is now.
    pub(super) fn take(&self, name: &Name, objects: &mut Objects) -> Vec<Edit> {
        objects.take(name, self.known.at(name))
    }
}

/// A kind that is not served has no objects. Definitions may be hidden from us: then all fields are thought to be there.
fn is_hidden(kind: &str, error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    status.code == 404 || status.code == 403 && kind == "CustomResourceDefinition"
}

/// What clients note for themselves is not looked at: it may be larger than all else that an object says.
fn only_own(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// Of a definition nothing but its annotations is looked at, and its schemas are large.
pub(super) fn only_annotations(definition: &mut CustomResourceDefinition) {
    definition.spec = CustomResourceDefinitionSpec::default();
    definition.status = None;
}

/// Of a ConfigMap nothing else is looked at.
pub(super) fn only_authority(map: &mut ConfigMap) {
    map.binary_data = None;
    if let Some(data) = &mut map.data {
        // Ports lead to Services, in what belongs to Ingresses.
        data.retain(|key, _| key == AUTHORITY_KEY || key.parse::<u16>().is_ok());
    }
}

/// Of an Opaque Secret nothing else is looked at.
pub(super) fn only_authorities(secret: &mut Secret) {
    if let Some(data) = &mut secret.data {
        data.retain(|key, _| key == AUTHORITY_KEY);
    }
    secret.data = secret.data.take().filter(|data| !data.is_empty());
    secret.metadata.annotations = None;
}

/// How long a watch that broke waits: twice as long each time, up to a bound that keeps a hub that is back from being missed for long.
#[derive(Default)]
pub(crate) struct Again {
    last: Duration,
}

impl Iterator for Again {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.last = (self.last * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        Some(self.last)
    }
}

impl Backoff for Again {
    fn reset(&mut self) {
        self.last = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_not_looked_at_is_not_kept() {
        let mut meta: ObjectMeta = from_value(json!({"name": "r", "managedFields": [{"manager": "kubectl"}],
            "annotations": {LAST_APPLIED: "{}", "atoll.dev/own": "x"}}))
        .unwrap();
        only_own(&mut meta);
        let kept: ObjectMeta = from_value(json!({"name": "r", "annotations": {"atoll.dev/own": "x"}})).unwrap();
        assert_eq!(meta, kept);
        let channel = json!({"metadata": {"annotations": {"gateway.networking.k8s.io/channel": "standard"}},
            "spec": {"group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Namespaced", "versions": [
                {"name": "v1", "served": true, "storage": true}]}});
        let mut definition: CustomResourceDefinition = from_value(channel).unwrap();
        only_annotations(&mut definition);
        assert!(definition.spec.versions.is_empty() && definition.metadata.annotations.is_some());
    }
}
