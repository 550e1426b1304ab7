//! What the node-local DNS servers of a member see of the topology: no keys of zones, no services of other cluster sets.
//!
//! In: the published topology, a member. Out: its facts, made once for all nodes of the member that follow. `None` once it is no member.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use atoll_api::facts::{Facts, key};
use atoll_api::names::ClusterName;
use atoll_api::topology::{Topology, Version};
use atoll_wire::delta::Shared;

use crate::topology::Published;

/// The newest view of each member that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Views {
    made: Mutex<BTreeMap<ClusterName, (Version, Shared)>>,
}

impl Views {
    /// What nodes of `member` see; `None` when it is no member.
    pub(super) fn of(&self, published: &Published, member: &ClusterName) -> Option<Shared> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !published.topology.clusters.contains_key(member) {
            made.remove(member);
            return None;
        }
        let before = made.get(member);
        if let Some((_, shared)) = before.filter(|(version, _)| *version == published.version) {
            return Some(shared.clone());
        }
        let facts = seen(published.without_keys.facts(), &published.topology, member);
        let (base, change) = match before {
            Some((version, shared)) => (version.generation, shared.facts().diff(&facts)),
            None => (0, facts.full()),
        };
        let shared = Shared::new(facts, published.version, base, change);
        made.insert(member.clone(), (published.version, shared.clone()));
        Some(shared)
    }
}

/// Without what other cluster sets share.
fn seen(facts: &Facts, topology: &Topology, member: &ClusterName) -> Facts {
    let set = |name: &str| topology.clusters.get(name).map(|cluster| cluster.set());
    let own = set(member.as_str());
    let foreign = |path: &str| {
        let mut words = path.split('/');
        match (words.next(), words.next()) {
            (Some(key::SERVICE), Some(of)) => Some(of) != own,
            (Some(key::ENDPOINTS), Some(cluster)) => set(cluster) != own,
            // Addresses of gateways' pools are nothing to DNS.
            (Some(key::BALANCER), _) => true,
            _ => false,
        }
    };
    let mut seen = Facts::clone(facts);
    let others: Vec<String> =
        facts.iter().map(|(path, _)| path).filter(|path| foreign(path)).map(str::to_owned).collect();
    for path in others {
        seen.remove(&path);
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_sees_the_services_of_its_own_set_and_no_keys() {
        let mut facts = Facts::default();
        for (name, environment) in [("eu", "prod"), ("us", "prod"), ("dev", "dev")] {
            facts.put(format!("cluster/{name}"), &json!({"name": name, "spec": {"environment": environment}}));
            facts.put(format!("endpoints/{name}/shop/web"), &json!({}));
        }
        for path in ["service/prod/shop/web", "service/dev/shop/web", "zone/a", "records/ops/a"] {
            facts.put(path, &json!({}));
        }
        let version = Version { epoch: 1, generation: 1 };
        let topology = Arc::new(Topology::from_facts(version, &facts));
        let without_keys = Shared::new(facts.clone(), version, 0, facts.full());
        facts.put("zone-keys/a", &json!({}));
        let whole = Shared::new(facts.clone(), version, 0, facts.full());
        let published = Published { version, topology, whole, without_keys };
        let views = Views::default();
        let paths = |name: &str| {
            let seen = views.of(&published, &name.parse().unwrap())?;
            Some(
                seen.facts()
                    .iter()
                    .map(|(path, _)| path.to_owned())
                    .filter(|p| !p.starts_with("cluster/"))
                    .collect::<Vec<_>>(),
            )
        };
        let prod =
            ["endpoints/eu/shop/web", "endpoints/us/shop/web", "records/ops/a", "service/prod/shop/web", "zone/a"];
        assert_eq!(paths("us").unwrap(), prod);
        assert_eq!(
            paths("dev").unwrap(),
            ["endpoints/dev/shop/web", "records/ops/a", "service/dev/shop/web", "zone/a"]
        );
        assert_eq!(paths("gone"), None);
    }
}
