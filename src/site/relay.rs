//! The relay port: agents' connections over mutual TLS, into the relay table under the name in their certificate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::{Accept, BoxStream, ClientAuth, RELAY_ALPN, RelayTable, Role, TlsIdentity, accept_relay};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate::Current;

/// Connections at once; a member has one, two while it renews its certificate.
const CONNECTIONS_MAX: usize = 4096;
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
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|accepted| (accepted, slot))
        };
        let Some(next) = shutdown.run_until_cancelled(next).await else { break };
        let ((stream, from), slot) = match next {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "relay port: accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (tls, config, relays, end) = (tls.clone(), Arc::clone(&config), relays.clone(), shutdown.clone());
        tasks.spawn(async move {
            let ended = end.run_until_cancelled(one(&tls, config, stream, &relays, end.clone())).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(%from, %error, "relay connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn one(
    tls: &TlsIdentity,
    config: Arc<rustls::ServerConfig>,
    stream: BoxStream,
    relays: &RelayTable,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let secured = tls.accept(config, stream).await?;
    let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned());
    let peer = secured.peer.ok_or_else(|| denied("no certificate"))?;
    // Members that are no more have their certificates revoked, which the handshake has checked.
    let Role::Cluster(cluster) = peer.role else { return Err(denied("only members' agents relay")) };
    if secured.alpn.as_deref() != Some(RELAY_ALPN) {
        return Err(denied("not the relay's protocol"));
    }
    accept_relay(secured.stream, cluster, relays, shutdown).await
}
