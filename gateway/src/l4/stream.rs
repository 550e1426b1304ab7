//! A stream of a client and one to an endpoint, joined until both ends are done.
//!
//! Endpoints are tried one after the other until one takes the connection; once bytes flow nothing is tried again.

use std::io;
use std::sync::Arc;

use atoll_reach::BoxStream;
use atoll_reach::proxy::Ends;
use tokio::time::Instant;

use super::{Endpoints, admit};
use crate::health::Failure;
use crate::http::InFlight;
use crate::plane::{Plane, Snapshot};
use crate::table::{ListenerTable, StreamRule};

/// Endpoints tried for one stream.
const ATTEMPTS_MAX: usize = 6;

/// Carries a stream to one of the rule's endpoints until both sides ended, or we do.
///
/// # Errors
/// Nobody takes it, or one side broke off.
pub(crate) async fn stream(
    plane: &Plane,
    mut client: BoxStream,
    ends: Ends,
    snapshot: Arc<Snapshot>,
    listener: &ListenerTable,
    rule: &StreamRule,
) -> io::Result<()> {
    let denied = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
    let peer = ends.client;
    let _permits = admit(plane, listener, rule, peer.ip()).map_err(denied)?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{}: the backend is missing", rule.route));
    let mut endpoints = Endpoints::of(plane, snapshot, rule, peer.ip()).ok_or_else(missing)?;
    let mut last = io::Error::new(io::ErrorKind::NotConnected, format!("{}: no endpoint is ready", rule.route));
    for _ in 0..ATTEMPTS_MAX {
        let Some((endpoint, seat)) = endpoints.next() else { break };
        let in_flight = InFlight::new(Arc::clone(&endpoint), seat);
        let began = Instant::now();
        let version = rule.terms.as_ref().and_then(|terms| terms.proxy).or(endpoint.care().proxy);
        match plane.pool.open_as(&endpoint, ends, version).await {
            Ok(mut server) => {
                endpoints.keep(&endpoint);
                plane.health.ok(&endpoint, Some(began.elapsed()));
                drop(endpoints);
                let joined = tokio::io::copy_bidirectional(&mut client, &mut server);
                let joined = plane.end.run_until_cancelled(joined);
                let ended = endpoint.end.run_until_cancelled(joined).await.flatten();
                tracing::debug!(%peer, route = %rule.route, endpoint = %endpoint.address, ?ended, "stream ended");
                drop(in_flight);
                return ended.transpose().map(drop);
            }
            Err(error) => {
                plane.health.failed(&endpoint, Failure::Connect);
                last = error;
            }
        }
    }
    Err(last)
}
