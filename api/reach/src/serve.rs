//! The far side of the relay (the agent): answers CONNECT by dialing into the member, if that is allowed.
//!
//! In: the agent's own outbound mTLS connection to the hub or a site, on which we serve HTTP/2. Out: spliced streams.
//! Never dials what [`Allow`] doesn't name.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::keepalive::Keepalive;
use crate::stream::{BoxStream, Connect};
use crate::tunnel::{CONNECTION_WINDOW_BYTES, REASON_HEADER, STREAM_WINDOW_BYTES, STREAMS_MAX, Tunnel, to_io};

/// A dial into the member that takes longer is answered with 504.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// What one splice buffers for each direction.
const SPLICE_BYTES: usize = 16 * 1024;

/// What may be reached through the relay.
pub trait Allow: Send + Sync {
    /// Where to dial for `host` and `port`, or why not. Names may be mapped to addresses here; whatever comes back is
    /// dialed as it stands.
    ///
    /// # Errors
    /// The reason, in words that may be shown to the asker.
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String>;
}

/// Serves the relay on a connection that we opened, until it ends or `shutdown`.
///
/// # Errors
/// What ended the connection: the peer broke it, or answers no pings any more.
pub async fn serve_relay(
    stream: BoxStream,
    allow: Arc<dyn Allow>,
    connect: Arc<dyn Connect>,
    keepalive: Keepalive,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(u32::try_from(STREAMS_MAX + 24).unwrap_or(u32::MAX))
        .max_header_list_size(16 * 1024)
        .handshake::<_, Bytes>(stream);
    let mut connection = tokio::time::timeout(Duration::from_secs(10), handshake)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the relay handshake took too long"))?
        .map_err(to_io)?;
    let pings = connection.ping_pong().expect("the first and only one to take it");
    let mut dead = std::pin::pin!(keepalive.watch(pings));
    // As many tasks as streams, which the connection bounds. All end with this function.
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    streams.spawn(serve(request, respond, Arc::clone(&allow), Arc::clone(&connect)));
                }
                Some(Err(error)) => return Err(to_io(error)),
                None => return Ok(()),
            },
            Some(_) = streams.join_next() => {}
            error = &mut dead => return Err(error),
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    allow: Arc<dyn Allow>,
    connect: Arc<dyn Connect>,
) {
    let dialed = tokio::select! {
        dialed = dial(&request, &*allow, &*connect) => dialed,
        // The asker has given up.
        _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let mut far = match dialed {
        Ok(far) => far,
        Err((status, reason)) => return refuse(respond, status, &reason),
    };
    let Ok(send) = respond.send_response(Response::new(()), false) else { return };
    let mut near = Tunnel::new(send, request.into_body(), None);
    // On an error both are dropped: the far side is closed, the near one reset, so that nobody takes it for an end.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, SPLICE_BYTES, SPLICE_BYTES).await;
}

async fn dial(
    request: &Request<RecvStream>,
    allow: &dyn Allow,
    connect: &dyn Connect,
) -> Result<BoxStream, (StatusCode, String)> {
    if request.method() != Method::CONNECT {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only CONNECT is served here".to_owned()));
    }
    let (Some(host), Some(port)) = (request.uri().host(), request.uri().port_u16()) else {
        return Err((StatusCode::BAD_REQUEST, "CONNECT needs host and port".to_owned()));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (host, port) = allow.allow(host, port).map_err(|reason| (StatusCode::FORBIDDEN, reason))?;
    match tokio::time::timeout(DIAL_MAX, connect.connect(&host, port)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err((StatusCode::GATEWAY_TIMEOUT, error.to_string()))
        }
        Ok(Err(error)) => Err((StatusCode::BAD_GATEWAY, error.to_string())),
        Err(_) => Err((StatusCode::GATEWAY_TIMEOUT, "the connect took too long".to_owned())),
    }
}

fn refuse(mut respond: SendResponse<Bytes>, status: StatusCode, reason: &str) {
    let plain: String = reason.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(200).collect();
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(&plain) {
        response.headers_mut().insert(REASON_HEADER, value);
    }
    // The asker may have gone; then nobody wants the answer.
    let _ = respond.send_response(response, true);
}

#[cfg(test)]
mod tests;
