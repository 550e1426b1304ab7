//! Who of several gateways writes statuses: the holder of a Lease. Source: KEP-589 (leases), as client-go elects.

use std::time::Duration;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// A holder that was not heard of for so long has lost it.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed, and looked at by the others.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(5);

/// This replica's part in it.
pub(crate) struct Lead {
    api: Api<Lease>,
    /// Of the Lease.
    name: String,
    identity: String,
    /// The holder's word as last seen, and when that was by our own clock: clocks of machines differ.
    seen: Option<(String, Instant)>,
    /// Until when we hold it.
    until: Option<Instant>,
}

impl Lead {
    pub(crate) fn new(client: Client, name: String, instance: &str) -> Self {
        // After a restart it is the same holder; whatever its forerunner still writes is refused where it is too old.
        let api = Api::namespaced(client, SYSTEM_NAMESPACE);
        Self { api, name, identity: instance.to_owned(), seen: None, until: None }
    }

    /// Whether this replica leads; asks the API server only when it is time to.
    pub(crate) async fn holds(&mut self) -> bool {
        let now = Instant::now();
        if self.until.is_some_and(|until| now + LEASE - RENEW_EVERY < until) {
            return true;
        }
        match self.claim(now).await {
            Ok(true) => self.until = Some(now + LEASE),
            Ok(false) => self.until = None,
            Err(error) => tracing::debug!(%error, lease = self.name, "lead not settled"),
        }
        self.until.is_some_and(|until| now < until)
    }

    /// Until when it leads, if it does.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Gives it up, so that another replica needs not wait.
    pub(crate) async fn give_up(&mut self) {
        if self.until.take().is_none() {
            return;
        }
        if let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await
            && let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity))
        {
            spec.holder_identity = None;
            // Whoever comes finds out in time if this fails.
            let _ = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        }
    }

    async fn claim(&mut self, now: Instant) -> kube::Result<bool> {
        let fresh = MicroTime(Timestamp::now());
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let spec = LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: Some(fresh.clone()),
                renew_time: Some(fresh),
                ..LeaseSpec::default()
            };
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            return settled(self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await);
        };
        let mut spec = lease.spec.take().unwrap_or_default();
        let ours = spec.holder_identity.as_ref() == Some(&self.identity);
        if let (false, Some(holder)) = (ours, spec.holder_identity.as_ref().filter(|h| !h.is_empty())) {
            let word = format!("{holder} {:?}", spec.renew_time);
            match &self.seen {
                Some((seen, since)) if *seen == word && now.duration_since(*since) >= LEASE => {}
                Some((seen, _)) if *seen == word => return Ok(false),
                _ => {
                    self.seen = Some((word, now));
                    return Ok(false);
                }
            }
        }
        if !ours {
            spec.acquire_time = Some(fresh.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
            spec.holder_identity = Some(self.identity.clone());
        }
        spec.lease_duration_seconds = i32::try_from(LEASE.as_secs()).ok();
        spec.renew_time = Some(fresh);
        lease.spec = Some(spec);
        settled(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }
}

/// Whoever was quicker has it.
fn settled<T>(written: kube::Result<T>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
