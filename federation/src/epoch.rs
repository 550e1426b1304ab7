//! The epoch that fences an old leader off, and what the hub says of itself: ConfigMap `atoll-system/atoll-hub`.
//!
//! In: the hub's id, address and CA. Out: the next epoch, bumped at every start by an update that names the resource version read.
//! Agents and data planes refuse older ones.

use std::collections::BTreeMap;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::authority::Authority;
use crate::config::Config;
use crate::error::{Error, is_conflict};

const NAME: &str = "atoll-hub";
/// Tries at an update that somebody else is faster at.
const TRIES_MAX: usize = 16;

/// What the hub says of itself to those who may read ConfigMaps.
#[derive(Debug, Clone)]
pub struct HubFacts {
    /// host:port of the link port.
    pub advertise: String,
    /// The hub's id, as in certificates.
    pub hub_id: String,
    /// SHA-256 of the CA certificate.
    pub pin: [u8; 32],
    /// The CA certificate, PEM.
    pub ca_pem: String,
    /// The operator's domain; empty where an earlier version wrote this.
    pub apex: String,
    /// host:port of the DNS servers, where the operator says so.
    pub dns: Option<String>,
}

impl HubFacts {
    /// Reads it from the hub's API.
    ///
    /// # Errors
    /// When no hub has run there, or the API server refuses.
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let data =
            maps.get(NAME).await.map_err(Error::api("read what the hub says of itself"))?.data.unwrap_or_default();
        let field = |name: &str| data.get(name).cloned().ok_or_else(|| Error::Facts(format!("`{name}` is missing")));
        let ca_pem = field("ca.crt")?;
        let (_, ca) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes())
            .map_err(|e| Error::Facts(format!("`ca.crt` is no certificate: {e}")))?;
        let pin = atoll_reach::ca_pin(&ca.contents);
        let said = |name: &str| data.get(name).filter(|value| !value.is_empty()).cloned();
        Ok(Self {
            advertise: field("advertise")?,
            hub_id: field("hub-id")?,
            pin,
            ca_pem,
            apex: said("apex").unwrap_or_default(),
            dns: said("dns"),
        })
    }
}

/// Takes the next epoch and says who the hub is.
pub(crate) async fn take(client: &Client, authority: &Authority, config: &Config) -> Result<u64, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    for _ in 0..TRIES_MAX {
        let held = maps.get_opt(NAME).await.map_err(Error::api("read the epoch"))?;
        let is_new = held.is_none();
        let mut map = held.unwrap_or_default();
        map.metadata.name = Some(NAME.into());
        let data = map.data.get_or_insert_with(BTreeMap::new);
        let epoch = held_epoch(data)?.saturating_add(1);
        for (field, value) in [
            ("epoch", epoch.to_string()),
            ("advertise", config.advertise.clone()),
            ("hub-id", authority.hub_id().to_owned()),
            ("ca.crt", authority.ca_pem().to_owned()),
            ("apex", config.apex.clone()),
            ("dns", config.dns.clone().unwrap_or_default()),
        ] {
            data.insert(field.to_owned(), value);
        }
        let params = PostParams::default();
        let done = if is_new { maps.create(&params, &map).await } else { maps.replace(NAME, &params, &map).await };
        match done {
            Ok(_) => return Ok(epoch),
            Err(e) if is_conflict(&e) => {}
            Err(e) => return Err(Error::api("take the next epoch")(e)),
        }
    }
    Err(Error::Facts("others change it all the time: does another hub run without leader election?".into()))
}

/// The epoch that was taken last; 0 where none was. One that can't be read must not look like none: members obey no older one.
fn held_epoch(data: &BTreeMap<String, String>) -> Result<u64, Error> {
    let Some(text) = data.get("epoch") else { return Ok(0) };
    text.parse().map_err(|_| Error::Facts(format!("`epoch` is `{text}`, which is no number: put back what it was")))
}

/// After the store was set back: the next epoch will be greater than any that was taken since what it holds now. Epochs are counted one
/// a start, far fewer than seconds pass.
///
/// # Errors
/// The API server refuses.
pub async fn pass_epochs(client: &Client, now: Timestamp) -> Result<(), Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    // A hub that never led was obeyed by nobody.
    let Some(mut map) = maps.get_opt(NAME).await.map_err(Error::api("read the epoch"))? else { return Ok(()) };
    let data = map.data.get_or_insert_with(BTreeMap::new);
    let held = held_epoch(data)?;
    data.insert("epoch".into(), held.saturating_add(1).max(now.as_second().unsigned_abs()).to_string());
    maps.replace(NAME, &PostParams::default(), &map).await.map_err(Error::api("pass the epochs taken since"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use atoll_apiserver::{ApiServer, Storage};
    use kube::api::{Patch, PatchParams};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn epochs_grow_also_after_a_restore_and_one_that_is_no_number_is_not_taken_for_none() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let api = ApiServer::open(atoll_apiserver::Config::default(), Storage::Memory).await.unwrap();
        let client = api.client();
        crate::lead::make_namespace(&client, SYSTEM_NAMESPACE).await.unwrap();
        let (authority, _) = Authority::generate("h1", now).unwrap();
        let config = Config::default();
        assert_eq!(take(&client, &authority, &config).await.unwrap(), 1);
        assert_eq!(take(&client, &authority, &config).await.unwrap(), 2);
        pass_epochs(&client, now).await.unwrap();
        let passed = take(&client, &authority, &config).await.unwrap();
        assert!(passed > now.as_second().unsigned_abs(), "{passed}");
        let facts = HubFacts::read(&client).await.unwrap();
        assert_eq!((facts.hub_id.as_str(), facts.pin), ("h1", authority.pin()));

        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        for (data, says) in [
            (json!({"epoch": "many"}), "`epoch` is `many`"),
            (json!({"epoch": null, "ca.crt": "garbage"}), "`ca.crt` is no certificate"),
            (json!({"ca.crt": null}), "`ca.crt` is missing"),
        ] {
            maps.patch(NAME, &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await.unwrap();
            let taken = if data["epoch"].is_string() {
                take(&client, &authority, &config).await.map(drop)
            } else {
                HubFacts::read(&client).await.map(drop)
            };
            let error = taken.unwrap_err().to_string();
            assert!(error.starts_with("configmap atoll-system/atoll-hub: ") && error.contains(says), "{error}");
        }
        api.close().await;
    }
}
