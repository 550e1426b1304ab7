//! Sends a request to endpoints until one answers: which one, how often, and what is said when none does.
//!
//! In: a head as endpoints get it, a body, an upstream. Out: an answer, or why there is none. A request is sent again only when nothing of it
//! was sent, or when it is idempotent and its body is still there; elsewhere first, then in the next cluster, within the budget.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atoll_api::kinds::BalanceMethod;
use atoll_api::topology::Standing;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::body::{InFlight, Outgoing, Reply};
use super::exchange::{Sent, exchange};
use super::refusal::Refusal;
use super::{headers, tunnel};
use crate::balance::{Picked, Wish, endpoint, pick};
use crate::choose::{Question, client_number, place};
use crate::endpoint::Endpoint;
use crate::health::Failure;
use crate::plane::{Plane, Snapshot};
use crate::table::Retry;

/// Attempts at one request.
const ATTEMPTS_MAX: usize = 6;
/// The status of an answer that did not come in time.
const LATE: u16 = 0;
/// So long an answer that nobody gets is read.
const DISCARD_MAX: Duration = Duration::from_secs(5);

/// What the access log says of a request.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) host: String,
    pub(super) listener: Option<Arc<str>>,
    pub(super) route: Option<Arc<str>>,
    /// The last one tried.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) attempts: usize,
}

/// A body that may have to be sent more than once.
pub(super) enum Payload {
    Empty,
    Whole(Bytes),
    /// Gone once it was sent; and whether the client broke it.
    Once(Option<Incoming>, Arc<AtomicBool>),
}

impl Payload {
    pub(super) fn new(body: Incoming) -> Self {
        if body.is_end_stream() { Self::Empty } else { Self::Once(Some(body), Arc::default()) }
    }

    fn take(&mut self) -> Option<Outgoing> {
        match self {
            Self::Empty => Some(Outgoing::Empty),
            Self::Whole(bytes) => Some(Outgoing::Whole(Full::new(bytes.clone()))),
            Self::Once(body, broken) => body.take().map(|body| Outgoing::Client(body, Arc::clone(broken))),
        }
    }

    /// Takes a body back that was not sent.
    fn put(&mut self, unsent: Outgoing) {
        if let (Self::Once(body, _), Outgoing::Client(incoming, _)) = (self, unsent) {
            *body = Some(incoming);
        }
    }

    fn is_there(&self) -> bool {
        !matches!(self, Self::Once(..))
    }

    /// Whether the client broke it off, or wrote what is no body: no endpoint is to blame then.
    fn is_broken(&self) -> bool {
        matches!(self, Self::Once(_, broken) if broken.load(Ordering::Acquire))
    }
}

/// Where a request goes, and on whose behalf.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) plane: &'a Arc<Plane>,
    pub(super) snapshot: &'a Arc<Snapshot>,
    /// The upstream's index.
    pub(super) upstream: usize,
    pub(super) host: &'a str,
    pub(super) standing: &'a Standing,
    /// The standing's number.
    pub(super) place: usize,
    pub(super) client: IpAddr,
    pub(super) request_timeout: Option<Duration>,
    pub(super) backend_timeout: Option<Duration>,
    /// What the route wants tried again.
    pub(super) retry: Option<&'a Retry>,
    /// The endpoint of the request's session.
    pub(super) session: Option<Picked>,
}

impl Forward<'_> {
    /// Sends the request until somebody answers.
    pub(super) async fn run(
        self,
        head: &Parts,
        mut payload: Payload,
        mut upgrade: Option<(HeaderValue, OnUpgrade)>,
        trace: &mut Trace,
    ) -> Result<Response<Reply>, Refusal> {
        let deadline = self.request_timeout.map(|t| Instant::now() + t);
        let (plane, live) = (self.plane, &self.snapshot.live[self.upstream]);
        let question = self.question();
        let tiers = question.tiers(&plane.health, &self.snapshot.remembered[self.upstream], self.place);
        let zone = place(self.standing, &self.snapshot.table.topology).zone;
        let wish = self.wish(&question, &head.headers, zone.as_deref());
        let replayable = payload.is_there() && is_idempotent(&head.method);
        let mut tried = Vec::new();
        let mut again = None;
        let mut asked = self.retry.map_or(0, |r| r.attempts);
        let mut last = Refusal::unavailable("no endpoint is ready");
        while trace.attempts < ATTEMPTS_MAX + self.retry.map_or(0, |r| r.attempts) {
            let now = Instant::now();
            let mut picked = again.or_else(|| pick(live, &tiers, &wish, &tried, &plane.dice, now));
            if picked.is_none() && self.retry.is_some() && !tried.is_empty() {
                // A route that wants a retry wants it also of an endpoint that was asked before.
                tried.clear();
                picked = pick(live, &tiers, &wish, &tried, &plane.dice, now);
            }
            let Some(at) = picked else { break };
            if trace.attempts > 0 && again.is_none() {
                let allowed = plane.budget.retry(now);
                plane.metrics.retried(allowed);
                if !allowed {
                    break;
                }
            }
            trace.attempts += 1;
            let fresh = again.take().is_some();
            if !fresh {
                tried.push(at);
            }
            let endpoint = &endpoint(live, at).endpoint;
            trace.endpoint = Some(Arc::clone(endpoint));
            let in_flight = InFlight::new(Arc::clone(endpoint));
            let limit = [deadline, self.backend_timeout.map(|t| now + t)].into_iter().flatten().min();
            let connection = match within(limit, plane.pool.get(endpoint, fresh)).await {
                Some(Ok(connection)) => connection,
                Some(Err(error)) => {
                    plane.health.failed(endpoint, Failure::Connect);
                    tracing::debug!(endpoint = %endpoint.address, %error, "connect failed");
                    last = Refusal::unavailable("no endpoint could be reached");
                    continue;
                }
                None => return Err(late()),
            };
            let Some(body) = payload.take() else { break };
            let request = request(head, body, endpoint);
            let sent = exchange(plane, endpoint, connection, request, replayable, limit).await;
            if payload.is_broken() && !matches!(sent, Sent::Answer(..)) {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "the body of the request is broken"));
            }
            match sent {
                Sent::Answer(response, connection) => {
                    plane.health.ok(endpoint, Some(now.elapsed()));
                    if payload.is_there() && self.again(&mut asked, response.status().as_u16(), deadline).await {
                        last = Refusal::new(response.status(), "the endpoint answered with an error");
                        discard(plane, *response, in_flight.holding(connection));
                        continue;
                    }
                    return Ok(self.back(*response, in_flight.holding(connection), upgrade.take()));
                }
                Sent::Unsent(body, reused) => {
                    payload.put(body);
                    if !reused {
                        plane.health.failed(endpoint, Failure::FirstByte);
                    }
                    again = Some(at).filter(|_| reused);
                    last = Refusal::new(StatusCode::BAD_GATEWAY, "the endpoint closed the connection");
                }
                Sent::Lost(reused) => {
                    last =
                        Refusal::new(StatusCode::BAD_GATEWAY, "the endpoint closed the connection without an answer");
                    if !reused {
                        plane.health.failed(endpoint, Failure::FirstByte);
                    }
                    if !replayable {
                        break;
                    }
                    again = Some(at).filter(|_| reused);
                }
                Sent::Down => last = Refusal::unavailable("the endpoint went down"),
                Sent::Late => {
                    last = late();
                    if !payload.is_there() || !self.again(&mut asked, LATE, deadline).await {
                        return Err(last);
                    }
                }
            }
        }
        Err(last)
    }

    /// Whether the route wants that tried again; waits as it says.
    async fn again(&self, asked: &mut usize, status: u16, deadline: Option<Instant>) -> bool {
        let Some(retry) = self.retry else { return false };
        let now = Instant::now();
        let wanted = status == LATE || retry.codes.contains(&status);
        if *asked == 0 || !wanted || deadline.is_some_and(|deadline| now + retry.backoff >= deadline) {
            return false;
        }
        *asked -= 1;
        if !retry.backoff.is_zero() {
            tokio::time::sleep(retry.backoff).await;
        }
        true
    }

    fn wish<'w>(&self, question: &Question<'_>, headers: &HeaderMap, zone: Option<&'w str>) -> Wish<'w> {
        let balance = question.policy().map(|p| &p.balance);
        Wish {
            method: balance.map_or_else(BalanceMethod::default, |b| b.method),
            key: balance.map_or(0, |b| b.key(headers, self.client)),
            session: self.session,
            zone,
        }
    }

    fn question(&self) -> Question<'_> {
        let (table, plane) = (&self.snapshot.table, self.plane);
        Question {
            table,
            upstream: &table.upstreams[self.upstream],
            live: &self.snapshot.live[self.upstream],
            host: self.host,
            standing: self.standing,
            client: client_number(self.client),
            dice: plane.dice.roll(),
        }
    }

    /// The answer as the client gets it, before filters.
    fn back(
        &self,
        mut response: Response<Incoming>,
        in_flight: InFlight,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
    ) -> Response<Reply> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let endpoint = hyper::upgrade::on(&mut response);
            let (mut head, _) = response.into_parts();
            let Some((asked, client)) = upgrade else {
                return Refusal::new(StatusCode::BAD_GATEWAY, "the endpoint switched protocols unasked").answer();
            };
            let protocol = head.headers.get(http::header::UPGRADE).cloned().unwrap_or(asked);
            headers::strip(&mut head.headers);
            headers::put_upgrade(&mut head.headers, &protocol);
            tunnel::spawn(self.plane, client, endpoint, in_flight);
            return Response::from_parts(head, Reply::own(Bytes::new()));
        }
        let (mut head, body) = response.into_parts();
        headers::strip(&mut head.headers);
        head.version = Version::HTTP_11;
        Response::from_parts(head, Reply::of(body, in_flight))
    }
}

/// Reads an answer that nobody gets, so that its connection can be used again.
fn discard(plane: &Plane, response: Response<Incoming>, in_flight: InFlight) {
    let mut rest = Reply::of(response.into_body(), in_flight);
    let end = plane.end.clone();
    let read = async move { while let Some(Ok(_)) = rest.frame().await {} };
    plane.tracker.spawn(async move { end.run_until_cancelled(tokio::time::timeout(DISCARD_MAX, read)).await });
}

fn late() -> Refusal {
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "no answer in time")
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

fn request(head: &Parts, body: Outgoing, endpoint: &Endpoint) -> Request<Outgoing> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.headers_mut() = head.headers.clone();
    if endpoint.address.h2 {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(http::header::HOST);
        let host = host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or("localhost");
        let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
        let scheme = if endpoint.address.tls.is_some() { "https" } else { "http" };
        if let Ok(uri) = format!("{scheme}://{host}{target}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Waits until `limit` at most.
async fn within<T>(limit: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout_at(limit, work).await.ok(),
        None => Some(work.await),
    }
}
