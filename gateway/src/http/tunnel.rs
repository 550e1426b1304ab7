//! What follows an upgrade (WebSocket): bytes both ways until either side ends, or we do.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::InFlight;
use crate::plane::Plane;

/// Starts the tunnel; it belongs to the plane's tracker.
pub(super) fn spawn(plane: &Arc<Plane>, client: OnUpgrade, endpoint: OnUpgrade, in_flight: InFlight) {
    let end = plane.end.clone();
    let tunnel = async move {
        let (client, endpoint) = tokio::try_join!(client, endpoint)?;
        let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
        let copied = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await;
        tracing::debug!(?copied, "tunnel ended");
        drop(in_flight);
        Ok::<_, hyper::Error>(())
    };
    plane.tracker.spawn(async move { end.run_until_cancelled(tunnel).await });
}
