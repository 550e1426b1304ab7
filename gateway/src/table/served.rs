//! What this replica states of the Gateways that it serves: the hub hands it on to DNS servers, and to the replica that writes statuses.
//! Pure. Source: design §3 (`answer: Gateway`); Gateway API, `GatewayConditionProgrammed`.

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::topology::{ServedGateway, Site, Topology};
use kube::ResourceExt as _;

use super::entry::GatewayDraft;
use super::listener::ListenerDraft;
use crate::fleet::Fleet;

/// Hosts that are stated one by one; a Gateway with more means everybody.
const HOSTS_MAX: usize = 512;

/// What is stated of a Gateway, if anything of it is served.
pub(super) fn served(gateway: &GatewayDraft) -> Option<ServedGateway> {
    // Where it will be reached is not known yet.
    let nowhere = gateway.front.as_ref().is_some_and(|front| front.addresses.is_empty());
    let any = !nowhere && gateway.refused.is_none() && gateway.listeners.iter().any(ListenerDraft::is_programmed);
    any.then(|| one(gateway))
}

fn one(gateway: &GatewayDraft) -> ServedGateway {
    let set = |set: &super::SetDraft| {
        (format!("{}/{}", set.namespace, set.object.name_any()), set.object.metadata.generation.unwrap_or_default())
    };
    ServedGateway {
        generation: gateway.object.metadata.generation.unwrap_or_default(),
        sets: gateway.sets.iter().filter(|s| s.refused.is_none()).map(set).collect(),
        addresses: match &gateway.front {
            Some(front) => front.addresses.clone(),
            None => gateway.addresses.iter().map(ToString::to_string).collect(),
        },
        hosts: hosts(gateway.listeners.iter().filter(|l| l.is_programmed())),
        cluster_set: gateway.set.clone(),
    }
}

/// The hosts of the listeners; of one that is for all, those of its routes.
fn hosts<'a>(listeners: impl Iterator<Item = &'a ListenerDraft>) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    for listener in listeners {
        match &listener.host {
            Some(host) => drop(hosts.insert(host.to_string())),
            None => hosts.extend(listener.routes.names().chain(listener.streams.names()).take(HOSTS_MAX + 1)),
        }
    }
    if hosts.len() > HOSTS_MAX { BTreeSet::from(["*".to_owned()]) } else { hosts }
}

/// Who else of the fleet is alive and does not serve an object as it is now: `generation` of what `stated` finds in what a replica states. A replica
/// that has no table yet takes no requests and does not count.
pub(crate) fn behind(
    topology: &Topology,
    fleet: &Fleet,
    instance: &str,
    generation: i64,
    stated: impl Fn(&BTreeMap<String, ServedGateway>) -> Option<i64>,
) -> Option<String> {
    let lags = |site: &&Site| {
        let others = fleet.has(site) && !site.silent && site.instance != instance;
        others && site.gateways.as_ref().is_some_and(|g| stated(g).is_none_or(|held| held < generation))
    };
    let names: Vec<&str> =
        topology.sites.values().map(AsRef::as_ref).filter(lags).map(|site| site.instance.as_str()).collect();
    (!names.is_empty()).then(|| format!("generation {generation} is not served yet by {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_live_replica_counts_and_no_other() {
        let site = |instance: &str, kind: &str, generation: Option<i64>, silent: bool| {
            let served = |generation| {
                let served = ServedGateway { generation, ..ServedGateway::default() };
                BTreeMap::from([("a/web".to_owned(), served)])
            };
            let gateways = generation.map(|g| if g == 0 { BTreeMap::new() } else { served(g) });
            Arc::new(Site { instance: instance.into(), kind: kind.into(), silent, gateways, ..Site::default() })
        };
        let own = || site("gateway-1", "gateway", Some(3), false);
        let foreign =
            Site { classes: vec!["internal".into()], ..Site::clone(&site("gateway-2", "gateway", Some(2), false)) };
        for (case, other, waits) in [
            ("lags, but is of another fleet", Arc::new(foreign), false),
            ("serves it", site("gateway-2", "gateway", Some(3), false), false),
            ("is ahead", site("gateway-2", "gateway", Some(4), false), false),
            ("lags", site("gateway-2", "gateway", Some(2), false), true),
            ("serves nothing of it", site("gateway-2", "gateway", Some(0), false), true),
            ("lags, but is dead", site("gateway-2", "gateway", Some(2), true), false),
            ("starts", site("gateway-2", "gateway", None, false), false),
            ("is no gateway", site("dns-1", "dns", None, false), false),
        ] {
            let sites = [own(), other].map(|site| (site.instance.clone(), site)).into();
            let topology = Topology { sites, ..Topology::default() };
            let behind = behind(&topology, &Fleet::default(), "gateway-1", 3, |g| g.get("a/web").map(|g| g.generation));
            let expected = waits.then(|| "generation 3 is not served yet by gateway-2".to_owned());
            assert_eq!(behind, expected, "{case}");
        }
    }
}
