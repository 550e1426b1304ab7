//! Sends a request to endpoints until one answers: which one, how often, and what is said when none does.
//!
//! In: a head as endpoints get it, a body, an upstream. Out: an answer, or why there is none. A request is sent again only when nothing of it
//! was sent, or when it is idempotent and its body is still there; elsewhere first, then in the next cluster, within the budget.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::BalanceMethod;
use atoll_api::topology::Standing;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::body::{InFlight, Outgoing, Reply};
use super::exchange::{Sent, exchange};
use super::refusal::Refusal;
use super::upload::{Answered, Payload};
use super::{headers, tunnel};
use crate::balance::{Picked, Wish, endpoint, pick};
use crate::choose::{Question, Tiers, client_number, place};
use crate::endpoint::{Endpoint, Live};
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
        payload: Payload,
        upgrade: Option<(HeaderValue, OnUpgrade)>,
        trace: &mut Trace,
    ) -> Result<Response<Reply>, Refusal> {
        let mut attempts = Attempts::new(self, head, payload, upgrade);
        let mut last = Refusal::unavailable("no endpoint is ready");
        while trace.attempts < attempts.max {
            let Some(next) = attempts.next(trace.attempts) else { break };
            trace.attempts += 1;
            trace.endpoint = Some(Arc::clone(&endpoint(attempts.live, next.at).endpoint));
            match attempts.one(next).await {
                Step::Answered(response) => return Ok(*response),
                Step::Next(refusal) => last = refusal,
                Step::End(refusal) => return Err(refusal),
            }
        }
        Err(last)
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
        answered: Option<Answered>,
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
        Response::from_parts(head, Reply::of(body, in_flight, answered))
    }
}

/// What one attempt came to.
enum Step {
    Answered(Box<Response<Reply>>),
    /// Another may do better; what is said if there is none.
    Next(Refusal),
    /// No further one may be made.
    End(Refusal),
}

/// The next endpoint to ask.
#[derive(Clone, Copy)]
struct Next {
    at: Picked,
    /// On a connection of its own: the one that was kept turned out to be closed.
    fresh: bool,
}

/// The attempts at one request: what was tried, and what may be.
struct Attempts<'a> {
    forward: Forward<'a>,
    head: &'a Parts,
    payload: Payload,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    live: &'a Live,
    tiers: Tiers,
    /// How an endpoint is picked, and by which key of the request.
    method: BalanceMethod,
    key: u64,
    /// The asker's.
    zone: Option<String>,
    deadline: Option<Instant>,
    /// Whether it may be sent again although it may have been worked on.
    replayable: bool,
    tried: Vec<Picked>,
    /// To be asked once more.
    again: Option<Picked>,
    /// How often the route still wants it tried again.
    asked: usize,
    max: usize,
}

impl<'a> Attempts<'a> {
    fn new(forward: Forward<'a>, head: &'a Parts, payload: Payload, upgrade: Option<(HeaderValue, OnUpgrade)>) -> Self {
        let asked = forward.retry.map_or(0, |r| r.attempts);
        let question = forward.question();
        let remembered = &forward.snapshot.remembered[forward.upstream];
        let balance = question.policy().map(|p| &p.balance);
        Self {
            live: &forward.snapshot.live[forward.upstream],
            tiers: question.tiers(&forward.plane.health, remembered, forward.place),
            method: balance.map_or_else(BalanceMethod::default, |b| b.method),
            key: balance.filter(|b| b.method.goes_by_key()).map_or(0, |b| b.key(&head.headers, forward.client)),
            zone: place(forward.standing, &forward.snapshot.table.topology).zone,
            deadline: forward.request_timeout.map(|t| Instant::now() + t),
            replayable: payload.is_there() && is_idempotent(&head.method),
            tried: Vec::new(),
            again: None,
            asked,
            max: ATTEMPTS_MAX + asked,
            forward,
            head,
            payload,
            upgrade,
        }
    }

    /// Whom to ask after `made` attempts; nobody where all were tried, or the budget is spent.
    fn next(&mut self, made: usize) -> Option<Next> {
        if let Some(at) = self.again.take() {
            return Some(Next { at, fresh: true });
        }
        let (plane, now) = (self.forward.plane, Instant::now());
        let (method, key, session) = (self.method, self.key, self.forward.session);
        let wish = Wish { method, key, session, zone: self.zone.as_deref() };
        let pick = |tried: &[Picked]| pick(self.live, &self.tiers, &wish, tried, &plane.dice, now);
        let mut picked = pick(&self.tried);
        if picked.is_none() && self.forward.retry.is_some() && !self.tried.is_empty() {
            // A route that wants a retry wants it also of an endpoint that was asked before.
            self.tried.clear();
            picked = pick(&[]);
        }
        let at = picked?;
        if made > 0 {
            let allowed = plane.budget.retry(now);
            plane.metrics.retried(allowed);
            if !allowed {
                return None;
            }
        }
        self.tried.push(at);
        Some(Next { at, fresh: false })
    }

    async fn one(&mut self, Next { at, fresh }: Next) -> Step {
        let (plane, endpoint) = (self.forward.plane, &endpoint(self.live, at).endpoint);
        let in_flight = InFlight::new(Arc::clone(endpoint));
        let began = Instant::now();
        let own = self.forward.backend_timeout.map(|t| began + t);
        let limit = [self.deadline, own].into_iter().flatten().min();
        let connection = match within(limit, plane.pool.get(endpoint, fresh)).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                plane.health.failed(endpoint, Failure::Connect);
                tracing::debug!(endpoint = %endpoint.address, %error, "connect failed");
                return Step::Next(Refusal::unavailable("no endpoint could be reached"));
            }
            None => return Step::End(late()),
        };
        let Some(body) = self.payload.take() else {
            return Step::End(Refusal::unavailable("the body of the request was sent already"));
        };
        let request = request(self.head, body, endpoint);
        let sent = exchange(plane, endpoint, connection, request, self.replayable, limit).await;
        if !matches!(sent, Sent::Answer(..))
            && let Some(refusal) = self.payload.refusal()
        {
            return Step::End(refusal);
        }
        if matches!(sent, Sent::Answer(..)) {
            plane.health.ok(endpoint, Some(began.elapsed()));
        }
        self.judge(sent, at, endpoint, in_flight).await
    }

    /// What an attempt says of the endpoint, and what follows from it.
    async fn judge(&mut self, sent: Sent, at: Picked, endpoint: &Arc<Endpoint>, in_flight: InFlight) -> Step {
        let plane = self.forward.plane;
        match sent {
            Sent::Answer(response, connection) => {
                let in_flight = in_flight.holding(connection);
                if self.payload.is_there() && self.is_wanted_again(response.status().as_u16()).await {
                    let refusal = Refusal::new(response.status(), "the endpoint answered with an error");
                    discard(plane, *response, in_flight);
                    return Step::Next(refusal);
                }
                let answered = self.payload.answered();
                let back = self.forward.back(*response, in_flight, answered, self.upgrade.take());
                Step::Answered(Box::new(back))
            }
            Sent::Unsent(body, reused) => {
                self.payload.put(body);
                self.closed(endpoint, at, reused);
                Step::Next(Refusal::new(StatusCode::BAD_GATEWAY, "the endpoint closed the connection"))
            }
            Sent::Lost(reused) => {
                let why = "the endpoint closed the connection without an answer";
                let refusal = Refusal::new(StatusCode::BAD_GATEWAY, why);
                self.closed(endpoint, at, reused);
                if self.replayable { Step::Next(refusal) } else { Step::End(refusal) }
            }
            Sent::Down => Step::Next(Refusal::unavailable("the endpoint went down")),
            Sent::Late if self.payload.is_there() && self.is_wanted_again(LATE).await => Step::Next(late()),
            Sent::Late => Step::End(late()),
        }
    }

    /// A connection was closed. One that was kept says nothing of its endpoint, which is asked once more.
    fn closed(&mut self, endpoint: &Endpoint, at: Picked, reused: bool) {
        self.again = Some(at).filter(|_| reused);
        if !reused {
            self.forward.plane.health.failed(endpoint, Failure::FirstByte);
        }
    }

    /// Whether the route wants that tried again; waits as it says.
    async fn is_wanted_again(&mut self, status: u16) -> bool {
        let Some(retry) = self.forward.retry else { return false };
        let now = Instant::now();
        let wanted = status == LATE || retry.codes.contains(&status);
        if self.asked == 0 || !wanted || self.deadline.is_some_and(|deadline| now + retry.backoff >= deadline) {
            return false;
        }
        self.asked -= 1;
        if !retry.backoff.is_zero() {
            tokio::time::sleep(retry.backoff).await;
        }
        true
    }
}

/// Reads an answer that nobody gets, so that its connection can be used again.
fn discard(plane: &Plane, response: Response<Incoming>, in_flight: InFlight) {
    let mut rest = Reply::of(response.into_body(), in_flight, None);
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
