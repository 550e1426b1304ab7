//! HTTP/1.1 or HTTP/2 on one connection of a client, until it ends or we do.
//!
//! In: a stream whose TLS was ended, and where it was accepted. Bounds: request head, streams, header sizes, idle time. At the end open
//! requests are finished, within the drain time.

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use atoll_reach::BoxStream;
use atoll_reach::proxy::Ends;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use super::extended::Extended;
use super::streams::Streams;
use super::upload::FromClient;
use crate::http1;
use crate::metrics::Cut;
use crate::plane::Plane;
use crate::table::Slot;
use crate::tls::Shown;

/// A client of HTTP/2 or HTTP/3 is asked so often whether it still is there, and has so long to say so.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
pub(crate) const PONG_MAX: Duration = Duration::from_secs(10);

/// Who asks, and where.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) slot: Slot,
    /// Of the connection, or of that on whose behalf a balancer opened it.
    pub(crate) ends: Ends,
    pub(crate) tls: bool,
    /// The name that TLS was opened for.
    pub(crate) sni: Option<String>,
    /// The certificate that it showed.
    pub(crate) certificate: Option<Box<Shown>>,
    /// Nobody stands between, so that it is told of HTTP/3.
    pub(crate) direct: bool,
}

impl Client {
    /// The ends of a connection of `client`, which is who opened this one, or who asks by way of it: of that one no port is known.
    pub(crate) fn ends_of(&self, client: IpAddr) -> Ends {
        if client == self.ends.client.ip() {
            return self.ends;
        }
        Ends { client: SocketAddr::new(client, 0), server: self.ends.server }
    }
}

/// Serves one connection. `h2`: HTTP/2 is spoken. `stop`: no further requests.
pub(crate) async fn speak(
    plane: Arc<Plane>,
    stream: BoxStream,
    client: Client,
    h2: bool,
    stop: CancellationToken,
) -> io::Result<()> {
    if !h2 {
        return http1::serve(plane, stream, client, stop).await;
    }
    let (limits, metrics) = (plane.limits.clone(), plane.metrics.clone());
    let (client, served_by) = (Arc::new(client), Arc::clone(&plane));
    let streams = Streams::new(Arc::clone(&plane));
    let held = streams.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (plane, client, streams) = (Arc::clone(&served_by), Arc::clone(&client), held.clone());
        let extended = Extended::of(&plane, &mut request);
        let request = request.map(|body| if extended.is_some() { FromClient::Nothing } else { FromClient::H2(body) });
        async move {
            let asked = streams.asked();
            let response = Box::pin(answer(&plane, &client, request)).await;
            asked.answered();
            Ok::<_, Infallible>(match extended {
                Some(extended) => extended.answer(&plane, &streams, response),
                None => response,
            })
        }
    });
    let connection = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let idle = async {
        streams.are_gone(limits.idle_timeout).await;
        metrics.cut(Cut::Idle);
    };
    let driven = async {
        let connection = pin!(connection);
        tokio::select! {
            ended = drive(&plane, connection, |c| c.graceful_shutdown(), &stop, idle) => ended.map_err(|error| {
                if is_calmed(&error) {
                    metrics.cut(Cut::Resets);
                }
                io::Error::other(error)
            }),
            () = streams.are_costly() => {
                metrics.cut(Cut::Resets);
                Err(io::Error::other("the client gives up what it asks for"))
            }
        }
    };
    Box::pin(driven).await
}

/// Whether the library ended a connection because its client gives up too much at once (RFC 9113 §7, ENHANCE_YOUR_CALM), before we did.
fn is_calmed(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Drives a connection. After `stop`, or once it is idle, it finishes what it does; after the plane's end it is dropped, and so is an idle
/// one whose client does not take that it is over.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    plane: &Plane,
    mut connection: Pin<&mut C>,
    finish: impl FnOnce(Pin<&mut C>),
    stop: &CancellationToken,
    idle: impl Future<Output = ()>,
) -> hyper::Result<()> {
    let is_idle = tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => false,
        () = idle => true,
    };
    finish(connection.as_mut());
    tokio::select! {
        ended = connection => ended,
        () = plane.end.cancelled() => Ok(()),
        () = sleep(plane.limits.write_timeout), if is_idle => Ok(()),
    }
}
