//! Who leads: the Lease (where hubs may run beside each other) and the epoch that fences an old leader off.
//!
//! ConfigMap `atoll-system/atoll-hub` holds the epoch, bumped at every acquisition by an update that names the resource version
//! read, and what others need to know of the hub: its id, advertised address and CA certificate. Source: client-go's leader
//! election (15 s lease, renewed each 5 s), which says itself that it does not fence: agents and data planes refuse older epochs.

use std::collections::BTreeMap;
use std::time::Duration;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::authority::Authority;
use crate::config::Config;
use crate::error::{Error, is_conflict};

const NAME: &str = "atoll-hub";
const LEASE_S: i32 = 15;
const RENEW: Duration = Duration::from_secs(5);

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
        let field = |name: &str| data.get(name).cloned().ok_or_else(|| Error::Ca(format!("`{name}` is missing")));
        let ca_pem = field("ca.crt")?;
        let (_, ca) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes()).map_err(|e| Error::Ca(e.to_string()))?;
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

/// Makes the namespace of our own objects where it is missing.
pub(crate) async fn make_namespace(client: &Client, name: &str) -> Result<(), Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces.get_opt(name).await.map_err(Error::api(format!("read namespace {name}")))?.is_some() {
        return Ok(());
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    match namespaces.create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(e) if is_conflict(&e) => Ok(()),
        Err(e) => Err(Error::api(format!("make namespace {name}"))(e)),
    }
}

/// Takes the next epoch and says who the hub is.
pub(crate) async fn take_epoch(client: &Client, authority: &Authority, config: &Config) -> Result<u64, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    loop {
        let held = maps.get_opt(NAME).await.map_err(Error::api("read the epoch"))?;
        let is_new = held.is_none();
        let mut map = held.unwrap_or_default();
        map.metadata.name = Some(NAME.into());
        let data = map.data.get_or_insert_with(BTreeMap::new);
        let epoch = data.get("epoch").and_then(|e| e.parse::<u64>().ok()).unwrap_or(0) + 1;
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
    let held = data.get("epoch").and_then(|e| e.parse::<u64>().ok()).unwrap_or(0);
    data.insert("epoch".into(), held.saturating_add(1).max(now.as_second().unsigned_abs()).to_string());
    maps.replace(NAME, &PostParams::default(), &map).await.map_err(Error::api("pass the epochs taken since"))?;
    Ok(())
}

/// Waits until the Lease is ours.
pub(crate) async fn acquire(client: &Client, identity: &str) -> Result<(), Error> {
    let mut holder = String::new();
    loop {
        match try_hold(client, identity, Timestamp::now()).await? {
            Held::Ours => return Ok(()),
            Held::Theirs(other) if other != holder => {
                tracing::info!(leader = other, "another hub leads, waiting");
                holder = other;
            }
            Held::Theirs(_) => {}
        }
        tokio::time::sleep(RENEW).await;
    }
}

/// Renews the Lease; ends when it is somebody else's, or could not be renewed for as long as it lasts.
pub(crate) async fn keep(client: &Client, identity: &str) -> Error {
    let mut good = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(RENEW).await;
        match try_hold(client, identity, Timestamp::now()).await {
            Ok(Held::Ours) => good = tokio::time::Instant::now(),
            Ok(Held::Theirs(other)) => return Error::LeadershipLost(other),
            Err(error) => {
                tracing::warn!(%error, "lease not renewed");
                // One renewal before others may take it.
                if good.elapsed() + RENEW >= Duration::from_secs(LEASE_S.unsigned_abs().into()) {
                    return error;
                }
            }
        }
    }
}

enum Held {
    Ours,
    Theirs(String),
}

async fn try_hold(client: &Client, identity: &str, now: Timestamp) -> Result<Held, Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held = leases.get_opt(NAME).await.map_err(Error::api("read the lease"))?;
    let is_new = held.is_none();
    let mut lease = held.unwrap_or_default();
    lease.metadata.name = Some(NAME.into());
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let until = spec.renew_time.as_ref().map(|t| t.0 + SignedDuration::from_secs(LEASE_S.into()));
    if !holder.is_empty() && holder != identity && until.is_some_and(|until| until > now) {
        return Ok(Held::Theirs(holder));
    }
    if holder != identity {
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = Some(LEASE_S);
    spec.renew_time = Some(MicroTime(now));
    let params = PostParams::default();
    let done = if is_new { leases.create(&params, &lease).await } else { leases.replace(NAME, &params, &lease).await };
    match done {
        Ok(_) => Ok(Held::Ours),
        Err(e) if is_conflict(&e) => Ok(Held::Theirs("another hub that was faster".into())),
        Err(e) => Err(Error::api("write the lease")(e)),
    }
}
