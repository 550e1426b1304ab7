//! Rotation: a new certificate at half of the old one's life.
//!
//! In: the identity in use. Out: the next one, swapped in and stored; who holds connections is told to open new ones. A
//! hub that is dead for days does not matter: tries go on until the old certificate runs out, and after that too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atoll_reach::{Connect, TlsIdentity};
use atoll_wire::v1::RenewRequest;
use atoll_wire::v1::enrolment_client::EnrolmentClient;
use jiff::Timestamp;
use rcgen::KeyPair;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::credentials::Shared;
use crate::enrol::csr;
use crate::error::AgentError;
use crate::hub;

/// Between two tries, and the longest sleep (the wall clock may jump).
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Renews until `shutdown`. `rotated` counts the swaps.
pub(crate) async fn run(
    shared: Shared,
    tls: TlsIdentity,
    connect: Arc<dyn Connect>,
    rotated: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    loop {
        let wait = until(tls.bearer().half_life()).min(TRY_AGAIN);
        if wait.is_zero() {
            let renewed = tokio::select! {
                renewed = renew(&shared, &tls, &connect) => renewed,
                () = shutdown.cancelled() => return,
            };
            match renewed {
                Ok(()) => {
                    tracing::info!(serial = %tls.bearer().serial, "certificate renewed");
                    rotated.send_modify(|n| *n += 1);
                }
                Err(error) => tracing::warn!(%error, "certificate could not be renewed yet"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(if wait.is_zero() { TRY_AGAIN } else { wait }) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn until(then: SystemTime) -> Duration {
    then.duration_since(SystemTime::from(Timestamp::now())).unwrap_or(Duration::ZERO)
}

async fn renew(shared: &Shared, tls: &TlsIdentity, connect: &Arc<dyn Connect>) -> Result<(), AgentError> {
    let old = shared.get();
    let mut enrolment = EnrolmentClient::new(hub::channel(connect, tls, &old.hub).await?);
    let key = KeyPair::generate()?;
    let request = RenewRequest { csr_pem: csr(&key)?, names: false };
    let answer = hub::answer(&old.hub, enrolment.renew(request)).await?;
    let mut next = old.clone();
    next.chain_pem = answer.certificate_pem;
    next.key_pem = key.serialize_pem();
    next.ca_pem = answer.ca_pem;
    // Parsed before it is stored: a broken answer must not replace what works.
    let identity = next.parse().map_err(|what| AgentError::Nonsense { hub: old.hub.clone(), what })?;
    shared
        .change(|stored| {
            stored.chain_pem.clone_from(&next.chain_pem);
            stored.key_pem.clone_from(&next.key_pem);
            stored.ca_pem.clone_from(&next.ca_pem);
        })
        .await?;
    tls.swap(identity)?;
    Ok(())
}
