//! Serial numbers for the zones that no Zone object describes: they grow with the topology's generation and never go back, not with a
//! new epoch, a fast change or a clock that was set back (RFC 1982).
//!
//! In: generations. Out: where the serials of this epoch begin. What was given out is covered by a number stored beforehand, in steps, so
//! that a write is rare; the next epoch begins above it.

use atoll_api::kinds::SYSTEM_NAMESPACE;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::error::Error;

const NAME: &str = "atoll-serials";
const FIELD: &str = "below";
/// Generations that one write covers.
const STEP: u64 = 4096;

/// The serials of this epoch.
pub(super) struct Serials {
    client: Client,
    base: u64,
    /// Every serial given out lies below.
    below: u64,
}

impl Serials {
    /// Begins above everything given out before, and at the time in seconds at least.
    pub(super) async fn begin(client: &Client, now_s: u64) -> Self {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let stored = maps.get_opt(NAME).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "zone serials not read, beginning at the time");
            None
        });
        let below = stored.and_then(|m| m.data?.get(FIELD)?.parse().ok()).unwrap_or(0);
        Self { client: client.clone(), base: now_s.max(below), below }
    }

    /// What a generation of this epoch is added to.
    pub(super) fn base(&self) -> u32 {
        // The rest is what RFC 1982 wraps around.
        (self.base & u64::from(u32::MAX)) as u32
    }

    /// Makes sure that no later epoch gives out the serial of this generation.
    pub(super) async fn cover(&mut self, generation: u64) {
        let serial = self.base + generation;
        if serial < self.below {
            return;
        }
        let below = serial + STEP;
        match self.store(below).await {
            Ok(()) => self.below = below,
            Err(error) => tracing::warn!(%error, "zone serials not covered"),
        }
    }

    async fn store(&self, below: u64) -> Result<(), Error> {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME},
            "data": {FIELD: below.to_string()}});
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let params = PatchParams::apply("atoll-serials").force();
        maps.patch(NAME, &params, &Patch::Apply(&body)).await.map(drop).map_err(Error::api("store the zone serials"))
    }
}

#[cfg(test)]
mod tests {
    use atoll_apiserver::{ApiServer, Config, Storage};

    use super::*;

    #[tokio::test]
    async fn a_new_epoch_begins_above_all_serials_of_the_old_one() {
        let api = ApiServer::open(Config::default(), Storage::Memory).await.unwrap();
        let client = api.client();
        crate::lead::make_namespace(&client, SYSTEM_NAMESPACE).await.unwrap();
        let mut last = 0;
        // The clock goes on, stands still while much changes, is set back.
        for (now_s, generations) in [(1_000, 3), (1_010, 10_000), (1_010, 1), (500, 5_000), (900_000, 2)] {
            let mut serials = Serials::begin(&client, now_s).await;
            for generation in 1..=generations {
                serials.cover(generation).await;
                let serial = u64::from(serials.base()) + generation;
                assert!(serial > last && serial > now_s, "{serial} after {last} at {now_s}");
                last = serial;
            }
        }
        api.close().await;
    }
}
