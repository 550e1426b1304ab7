//! The relay port: agents' connections over mutual TLS, into the relay table under the name in their certificate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Accept, ClientAuth, Door, RELAY_ALPN, RelayTable, Role, Secured, accept_relay, neighbourhood};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::Current;

/// Connections at once of members; each has one, two while it renews its certificate.
const CONNECTIONS_MAX: usize = 4096;
/// Connections at once that have not shown a certificate yet, in all and from one address.
const STRANGERS_MAX: usize = 1024;
const NEIGHBOURS_MAX: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`. Waits for the site's certificate first.
pub(super) async fn serve(
    mut listener: Box<dyn Accept>,
    mut identity: Current,
    relays: RelayTable,
    shutdown: CancellationToken,
) {
    let ready = async { identity.wait_for(Option::is_some).await.ok().and_then(|tls| tls.clone()) };
    let Some(Some(tls)) = shutdown.run_until_cancelled(ready).await else { return };
    let config = tls.server(ClientAuth::Required, &[RELAY_ALPN]);
    let (slots, tasks) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    let strangers = Door::new(STRANGERS_MAX, NEIGHBOURS_MAX);
    loop {
        let Some(next) = shutdown.run_until_cancelled(listener.accept()).await else { break };
        let (stream, from) = match next {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "relay port: accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let stranger = strangers.enter(neighbourhood(from.ip()));
        let (tls, config, relays, end) = (tls.clone(), Arc::clone(&config), relays.clone(), shutdown.clone());
        let slots = Arc::clone(&slots);
        tasks.spawn(async move {
            let work = async {
                let too_many = || io::Error::other("too many connections without a certificate");
                let stream =
                    stranger.end().run_until_cancelled(tls.accept(config, stream)).await.ok_or_else(too_many)?;
                drop(stranger);
                let _slot = slots.try_acquire().map_err(io::Error::other)?;
                one(stream?, &relays, end.clone()).await
            };
            if let Some(Err(error)) = end.run_until_cancelled(work).await {
                tracing::debug!(%from, %error, "relay connection ended");
            }
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn one(secured: Secured, relays: &RelayTable, shutdown: CancellationToken) -> io::Result<()> {
    let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned());
    let peer = secured.peer.ok_or_else(|| denied("no certificate"))?;
    // Members that are no more have their certificates revoked, which the handshake has checked.
    let Role::Cluster(cluster) = peer.role else { return Err(denied("only members' agents relay")) };
    if secured.alpn.as_deref() != Some(RELAY_ALPN) {
        return Err(denied("not the relay's protocol"));
    }
    accept_relay(secured.stream, cluster, relays, shutdown).await
}
