//! What the hub wants of this member, parsed, and whether the hub can be heard now.
//!
//! In: the desired facts as the link holds them. Out: [`Desired`], swapped whole. An item that doesn't parse is left as
//! it was decided before: unreadable is not absent, and absent alone is a removal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atoll_api::copy::{CheckJob, CopyJob};
use atoll_api::facts::{Facts, key};
use atoll_api::topology::{BalancerState, DesiredBundle, Site, StubFacts};
use serde::de::DeserializeOwned;

/// Everything the hub wants of this member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    /// By `namespace/name`.
    pub(crate) bundles: BTreeMap<String, Arc<DesiredBundle>>,
    /// By `namespace/request`.
    pub(crate) checks: BTreeMap<String, Arc<CheckJob>>,
    /// By `namespace/request`.
    pub(crate) copies: BTreeMap<String, Arc<CopyJob>>,
    /// By instance.
    pub(crate) sites: BTreeMap<String, Arc<Site>>,
    /// What became of the member's Services of type LoadBalancer, by `namespace/name`.
    pub(crate) balancers: BTreeMap<String, Arc<BalancerState>>,
    /// The keys of the labels that the endpoints of a service are told with, by `namespace/service`.
    pub(crate) labels: BTreeMap<String, Arc<BTreeSet<String>>>,
    /// The uid of kube-system in the hub's API.
    pub(crate) hub: String,
    /// What the member's own resolver is to ask Atoll for.
    pub(crate) stub: Option<StubFacts>,
    /// Keys that are there but could not be read: they stay as they are.
    pub(crate) unread: BTreeSet<String>,
}

impl Desired {
    /// Whether the member's API, whose kube-system has this uid, is the hub's, too: gateways see its Services themselves then.
    pub(crate) fn holds_hub(&self, uid: Option<&str>) -> bool {
        uid.is_some_and(|uid| self.hub == uid)
    }

    /// Parses `facts`.
    pub(crate) fn of(facts: &Facts) -> Self {
        let mut desired = Self::default();
        let unread = &mut desired.unread;
        desired.bundles = parse(facts, key::BUNDLE, unread);
        desired.checks = parse(facts, key::CHECK, unread);
        desired.copies = parse(facts, key::COPY, unread);
        desired.sites = parse(facts, key::SITE, unread);
        desired.balancers = parse(facts, key::BALANCER, unread);
        desired.labels = parse(facts, key::LABELS, unread);
        desired.hub = facts.get(key::HUB).unwrap_or_default();
        desired.stub = facts.get(key::STUB);
        desired.bundles.retain(|name, bundle| {
            let same = *name == format!("{}/{}", bundle.namespace, bundle.name);
            if !same {
                unread.insert(format!("{}/{name}", key::BUNDLE));
            }
            same
        });
        desired
    }
}

fn parse<T: DeserializeOwned>(facts: &Facts, what: &str, unread: &mut BTreeSet<String>) -> BTreeMap<String, Arc<T>> {
    let mut found = BTreeMap::new();
    for (rest, json) in facts.under(what) {
        match serde_json::from_slice(json) {
            Ok(value) => drop(found.insert(rest.to_owned(), Arc::new(value))),
            Err(error) => {
                tracing::warn!(key = format!("{what}/{rest}"), %error, "what the hub wants can't be read, left as it is");
                unread.insert(format!("{what}/{rest}"));
            }
        }
    }
    found
}

/// The link's word to those who act.
#[derive(Debug, Clone, Default)]
pub(crate) struct Word {
    /// Nothing before the first complete set.
    pub(crate) desired: Option<Arc<Desired>>,
    /// The hub was heard within the last few seconds. Nobody changes anything in the member while it was not.
    pub(crate) heard: bool,
    /// The hub has said that this is no member any more.
    pub(crate) left: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_absent() {
        let mut facts = Facts::default();
        facts.put(
            "bundle/shop/web",
            &DesiredBundle { namespace: "shop".into(), name: "web".into(), ..Default::default() },
        );
        facts.put("bundle/shop/odd", &"not a bundle");
        facts.put(
            "bundle/shop/lie",
            &DesiredBundle { namespace: "other".into(), name: "lie".into(), ..Default::default() },
        );
        let desired = Desired::of(&facts);
        assert_eq!(desired.bundles.keys().collect::<Vec<_>>(), ["shop/web"]);
        assert_eq!(desired.unread.iter().collect::<Vec<_>>(), ["bundle/shop/lie", "bundle/shop/odd"]);
    }
}
