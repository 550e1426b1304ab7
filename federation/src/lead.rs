//! Who leads, where hubs may run beside each other: the Lease `atoll-system/atoll-hub`.
//!
//! A Lease is free once nobody has renewed it for 15 s by the clock of who wants it: other hubs' clocks are not believed. Source:
//! client-go's leader election, which says itself that it does not fence: that is what the epoch is for, which a leader takes next
//! ([`crate::epoch`]).

use std::time::Duration;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, is_conflict};

const NAME: &str = "atoll-hub";
const LEASE_S: i32 = 15;
const LEASE: Duration = Duration::from_secs(LEASE_S as u64);
const RENEW: Duration = Duration::from_secs(5);

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

/// Waits until the Lease is ours.
pub(crate) async fn acquire(client: &Client, identity: &str) -> Result<(), Error> {
    let (mut holder, mut watched) = (String::new(), Watched::default());
    loop {
        match try_hold(client, identity, Timestamp::now(), &mut watched).await? {
            Held::Ours => return Ok(()),
            Held::Theirs(other) if other != holder => {
                tracing::info!(leader = other, "another hub leads, waiting");
                holder = other;
            }
            Held::Theirs(_) => {}
        }
        sleep(RENEW).await;
    }
}

/// Renews the Lease; ends when it is somebody else's, or could not be renewed for as long as it lasts.
pub(crate) async fn keep(client: &Client, identity: &str) -> Error {
    let (mut good, mut watched) = (Instant::now(), Watched::default());
    loop {
        sleep(RENEW).await;
        let tried = timeout(RENEW, try_hold(client, identity, Timestamp::now(), &mut watched)).await;
        let error = match tried.unwrap_or(Err(Error::Silent("renew lease atoll-system/atoll-hub"))) {
            Ok(Held::Ours) => {
                good = Instant::now();
                continue;
            }
            Ok(Held::Theirs(other)) => return Error::LeadershipLost(other),
            Err(error) => error,
        };
        tracing::warn!(%error, "lease not renewed");
        // One renewal before others may take it.
        if good.elapsed() + RENEW >= LEASE {
            return error;
        }
    }
}

enum Held {
    Ours,
    Theirs(String),
}

/// The last renewal that was seen, and since when by our own clock: the clock of whoever wrote it may be wrong.
#[derive(Default)]
struct Watched(Option<(Option<MicroTime>, Instant)>);

impl Watched {
    /// How long there has been no other renewal than this one.
    fn unchanged_for(&mut self, renewed: Option<&MicroTime>) -> Duration {
        match &self.0 {
            Some((seen, since)) if seen.as_ref() == renewed => since.elapsed(),
            _ => {
                self.0 = Some((renewed.cloned(), Instant::now()));
                Duration::ZERO
            }
        }
    }
}

async fn try_hold(client: &Client, identity: &str, now: Timestamp, watched: &mut Watched) -> Result<Held, Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let held = leases.get_opt(NAME).await.map_err(Error::api("read the lease"))?;
    let is_new = held.is_none();
    let mut lease = held.unwrap_or_default();
    lease.metadata.name = Some(NAME.into());
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    let holder = spec.holder_identity.clone().unwrap_or_default();
    let is_theirs = !holder.is_empty() && holder != identity;
    if is_theirs && watched.unchanged_for(spec.renew_time.as_ref()) < LEASE {
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

#[cfg(test)]
mod tests {
    use atoll_apiserver::{ApiServer, Storage};
    use http::{Request, Response};
    use jiff::SignedDuration;
    use kube::client::Body;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_api_server_does_not_answer_ends_before_another_may_lead() {
        let silent =
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, std::io::Error>>());
        let started = Instant::now();
        let error = keep(&Client::new(silent, "default"), "me").await;
        assert!(matches!(error, Error::Silent(_)), "{error}");
        assert!(started.elapsed() < LEASE, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_clock_is_behind_keeps_the_lease_and_one_that_is_gone_loses_it() {
        let api = ApiServer::open(atoll_apiserver::Config::default(), Storage::Memory).await.unwrap();
        let client = api.client();
        make_namespace(&client, SYSTEM_NAMESPACE).await.unwrap();
        let renew = async || {
            let now = Timestamp::now() - SignedDuration::from_hours(1);
            matches!(try_hold(&client, "first", now, &mut Watched::default()).await, Ok(Held::Ours))
        };
        assert!(renew().await);
        let mut second = std::pin::pin!(acquire(&client, "second"));
        for _ in 0..12 {
            assert!(timeout(RENEW, second.as_mut()).await.is_err(), "taken from a hub that renews it");
            assert!(renew().await);
        }
        let gone = Instant::now();
        second.await.unwrap();
        assert!(gone.elapsed() >= LEASE && gone.elapsed() <= LEASE + 2 * RENEW, "{:?}", gone.elapsed());
        assert!(!renew().await, "who comes back finds another");
        api.close().await;
    }
}
