//! Listeners: accept loops of the shared ports and of those that Gateways want beside them, TCP and UDP.
//!
//! In: what accepts, where. Out: connections, each a task of the plane's tracker, as many at once as are allowed. When descriptors run
//! out the loop waits rather than spin.

mod hello;
mod per_client;
mod ports;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::proxy::Ends;
use atoll_reach::{Accept, BoxStream, Listen};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use hello::hello;
pub(crate) use per_client::PerClient;
pub(crate) use ports::OpenPorts;

use crate::connection::serve;
use crate::plane::Plane;
use crate::table::Slot;

/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// So long clients wait in the kernel's queue for the first table, after which they are told that there is none.
const FIRST_TABLE_MAX: Duration = Duration::from_secs(3);

/// What accept loops share.
#[derive(Clone)]
pub(crate) struct Listening {
    pub(crate) plane: Arc<Plane>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) listen: Arc<dyn Listen>,
}

impl Listening {
    pub(crate) fn new(plane: Arc<Plane>, listen: Arc<dyn Listen>) -> Self {
        let slots = Arc::new(Semaphore::new(plane.limits.connections_max.min(Semaphore::MAX_PERMITS)));
        Self { plane, slots, listen }
    }

    /// Waits for the first table, for some time.
    pub(crate) async fn until_ready(&self) {
        let mut ready = self.plane.ready.subscribe();
        // After that clients are told that there is none.
        let _ = tokio::time::timeout(FIRST_TABLE_MAX, ready.wait_for(|ready| *ready)).await;
    }

    /// Accepts until `stop`.
    pub(crate) async fn accept(self, mut listener: Box<dyn Accept>, slot: Slot, stop: CancellationToken) {
        if stop.run_until_cancelled(self.until_ready()).await.is_none() {
            return;
        }
        let local = listener.local_addr();
        loop {
            let accepted = stop.run_until_cancelled(async {
                let permit = Arc::clone(&self.slots).acquire_owned().await.ok()?;
                Some((permit, listener.accept().await))
            });
            let Some(Some((permit, accepted))) = accepted.await else { return };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%slot, %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (plane, stop) = (Arc::clone(&self.plane), stop.clone());
            self.plane.tracker.spawn(async move {
                plane.metrics.connections.inc();
                let _open = plane.connections.open(peer, slot);
                let ends = Ends { client: peer, server: opened_to(&stream).unwrap_or(local) };
                let ended = serve(Arc::clone(&plane), stream, ends, slot, stop).await;
                plane.metrics.connections.dec();
                if let Err(error) = ended {
                    tracing::debug!(%peer, %slot, %error, "connection ended");
                }
                drop(permit);
            });
        }
    }
}

/// The address that a connection was opened to; nothing where it is none of the system's.
fn opened_to(stream: &BoxStream) -> Option<SocketAddr> {
    let stream: &dyn Any = &**stream;
    stream.downcast_ref::<TcpStream>()?.local_addr().ok()
}
