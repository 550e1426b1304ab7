//! Certificates that no longer count, by serial, in ConfigMap `atoll-system/atoll-revoked` until they would have expired.

use std::collections::BTreeMap;

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_reach::{Revocations, Serial};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Mutex;

use crate::error::Error;

const NAME: &str = "atoll-revoked";

/// The list, as stored and as checked.
pub(crate) struct Revoked {
    client: Client,
    checked: Revocations,
    held: Mutex<BTreeMap<String, Timestamp>>,
}

impl Revoked {
    pub(crate) async fn load(client: Client, checked: Revocations, now: Timestamp) -> Result<Self, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let stored = maps.get_opt(NAME).await.map_err(Error::api("read the revocation list"))?;
        let data = stored.and_then(|m| m.data).unwrap_or_default();
        let held: BTreeMap<String, Timestamp> = data
            .into_iter()
            .filter_map(|(serial, until)| Some((serial, until.parse().ok()?)))
            .filter(|(_, until)| *until > now)
            .collect();
        checked.set(held.keys().map(|s| Serial::from_hex(s)));
        Ok(Self { client, checked, held: Mutex::new(held) })
    }

    /// Revokes `serial`, at once here, then in the store.
    pub(crate) async fn add(&self, serial: &Serial, until: Timestamp, now: Timestamp) -> Result<(), Error> {
        let mut held = self.held.lock().await;
        let gone: Vec<String> = held.iter().filter(|(_, until)| **until <= now).map(|(s, _)| s.clone()).collect();
        for serial in &gone {
            held.remove(serial);
        }
        held.insert(serial.as_str().to_owned(), until);
        self.checked.set(held.keys().map(|s| Serial::from_hex(s)));
        let mut data: serde_json::Map<_, _> = held.iter().map(|(s, t)| (s.clone(), json!(t.to_string()))).collect();
        data.extend(gone.into_iter().map(|s| (s, serde_json::Value::Null)));
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data});
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let done = match maps.patch(NAME, &PatchParams::default(), &Patch::Merge(&body)).await {
            Err(e) if crate::error::is_missing(&e) => {
                let params = PatchParams::apply(FIELD_MANAGER).force();
                maps.patch(NAME, &params, &Patch::Apply(&body)).await
            }
            other => other,
        };
        done.map(drop).map_err(Error::api("store the revocation list"))
    }

    /// The serials, for the topology.
    pub(crate) async fn serials(&self) -> Vec<String> {
        self.held.lock().await.keys().cloned().collect()
    }
}
