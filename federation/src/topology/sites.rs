//! The DNS servers and gateways that report to the hub: who they are, which members they reach.
//!
//! Held in memory, and in ConfigMap `atoll-system/atoll-sites`, so that a hub that starts does not tell agents to drop the relay
//! connections of sites that have not reported yet. A site that is silent for five minutes is forgotten.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_api::names::ClusterName;
use atoll_api::topology::Site;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;

const NAME: &str = "atoll-sites";
const KEY: &str = "sites";
const FORGOTTEN: Duration = Duration::from_secs(300);
/// A site that was not heard of for so long is silent: three reports are missing.
const LEASE: Duration = Duration::from_secs(15);
/// A probe's word counts for so long.
const PROBE_FRESH: Duration = Duration::from_secs(15);
const SITES_MAX: usize = 1024;

/// What a site says of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Member → whether it answers from there.
    pub(crate) probes: BTreeMap<String, bool>,
    /// Target of a health check → whether it is well from there.
    pub(crate) checks: BTreeMap<String, bool>,
    /// Member → round-trip time from there.
    pub(crate) rtt_ms: BTreeMap<ClusterName, u32>,
}

struct Known {
    site: Site,
    said: Said,
    heard: Instant,
    /// Since the hub started.
    reported: bool,
}

/// Every site.
pub(crate) struct Sites {
    known: Mutex<BTreeMap<String, Known>>,
    changed: watch::Sender<u64>,
}

/// The sites as the hub stored them last; none where it never did.
///
/// # Errors
/// What the API says.
pub async fn stored_sites(client: &Client) -> kube::Result<Vec<Site>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let text = maps.get_opt(NAME).await?.and_then(|m| m.data).and_then(|mut d| d.remove(KEY)).unwrap_or_default();
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

impl Sites {
    pub(crate) async fn load(client: &Client, now: Instant) -> Result<Self, Error> {
        let known =
            stored_sites(client).await.map_err(Error::api("read the known sites"))?.into_iter().map(|site| {
                (site.instance.clone(), Known { site, said: Said::default(), heard: now, reported: false })
            });
        Ok(Self { known: Mutex::new(known.collect()), changed: watch::Sender::new(0) })
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes a report.
    pub(crate) fn report(&self, site: Site, said: Said, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SITES_MAX && !known.contains_key(&site.instance) {
            tracing::warn!(instance = site.instance, "too many sites, report dropped");
            return;
        }
        let old = known.get(&site.instance);
        let same = old.is_some_and(|old| old.reported && old.site == site && old.said == said);
        known.insert(site.instance.clone(), Known { site, said, heard: now, reported: true });
        drop(known);
        if !same {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// The sites known now; those silent for long are forgotten, those silent for a while, or leaving, are said to be.
    pub(crate) fn list(&self, now: Instant) -> Vec<Site> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, k| now.saturating_duration_since(k.heard) < FORGOTTEN);
        let silent = |k: &Known| now.saturating_duration_since(k.heard) >= LEASE;
        // Who left and is not heard any more has gone.
        let leaving = |k: &Known| k.site.leaving && !silent(k);
        let each = known.values();
        each.map(|k| Site { silent: silent(k) || leaving(k), leaving: leaving(k), ..k.site.clone() }).collect()
    }

    /// Members by what sites say of them lately: one that reaches it is enough.
    pub(crate) fn probes(&self, now: Instant) -> BTreeMap<String, bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut said: BTreeMap<String, bool> = BTreeMap::new();
        for k in known.values().filter(|k| k.reported && now.saturating_duration_since(k.heard) < PROBE_FRESH) {
            for (member, up) in &k.said.probes {
                *said.entry(member.clone()).or_default() |= up;
            }
        }
        said
    }

    /// What each site says of others lately, with itself.
    pub(crate) fn said(&self, now: Instant) -> Vec<(Site, Said)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.values().filter(|k| k.reported && now.saturating_duration_since(k.heard) < PROBE_FRESH);
        fresh.map(|k| (k.site.clone(), k.said.clone())).collect()
    }

    /// Stores the sites for the next start.
    pub(crate) async fn store(client: &Client, sites: &[Site]) -> Result<(), Error> {
        let text = serde_json::to_string(sites).expect("sites are plain JSON");
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {KEY: text}});
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        maps.patch(NAME, &params, &Patch::Apply(&body)).await.map(drop).map_err(Error::api("store the known sites"))
    }
}

#[cfg(test)]
mod tests {
    use atoll_apiserver::{ApiServer, Config, Storage};

    use super::*;

    #[tokio::test]
    async fn a_site_is_silent_once_its_lease_is_over_until_it_speaks_again() {
        let api = ApiServer::open(Config::default(), Storage::Memory).await.unwrap();
        let start = Instant::now();
        let sites = Sites::load(&api.client(), start).await.unwrap();
        let site = |name: &str| Site { instance: name.into(), kind: "gateway".into(), ..Site::default() };
        for (after_s, speaks, expected) in [
            (0, vec!["gateway-1", "gateway-2"], "gateway-1 gateway-2"),
            (10, vec!["gateway-1"], "gateway-1 gateway-2"),
            (14, vec![], "gateway-1 gateway-2"),
            (15, vec![], "gateway-1 (gateway-2)"),
            (20, vec!["gateway-1", "gateway-2"], "gateway-1 gateway-2"),
            (36, vec!["gateway-2"], "(gateway-1) gateway-2"),
            (321, vec!["gateway-2"], "gateway-2"),
        ] {
            let now = start + Duration::from_secs(after_s);
            for name in speaks {
                sites.report(site(name), Said::default(), now);
            }
            let listed = sites.list(now).into_iter();
            let said = listed.map(|s| if s.silent { format!("({})", s.instance) } else { s.instance });
            assert_eq!(said.collect::<Vec<_>>().join(" "), expected, "after {after_s} s");
        }
        api.close().await;
    }
}
