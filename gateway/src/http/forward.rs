//! Sends a request to endpoints until one answers: which one, how often, and what is said when none does.
//!
//! In: a head as endpoints get it, in octets or parts, a body, an upstream. Out: an answer, or why there is none. A request is sent again only when nothing of it
//! was sent, or when it is idempotent and its body is still there; elsewhere first, then in the next cluster, within the budget.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::BalanceMethod;
use atoll_api::topology::Standing;
use atoll_reach::proxy::Ends;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::body::{FromEndpoint, InFlight, Reply};
use super::early::Early;
use super::exchange::{Answer, Attempt, Sent};
use super::headers;
use super::refusal::Refusal;
use super::upload::{Answered as Told, Payload};
use crate::balance::{Picked, Wish, endpoint, is_left, pick};
use crate::choose::{Full, Question, Seat, Tiers, client_number, place, seat};
use crate::endpoint::{Endpoint, Live};
use crate::filter::Why;
use crate::health::Failure;
use crate::http1;
use crate::plane::{Plane, Snapshot};
use crate::pool::{Connection, Pool};
use crate::progress::Alarm;
use crate::table::{Policy, Retry};
use crate::traces::Started;

/// A connect that takes longer makes us look whether anybody is there.
const SLOW_CONNECT: Duration = Duration::from_millis(400);
/// Attempts at one request.
const ATTEMPTS_MAX: usize = 6;
/// The status of an answer that did not come in time.
const LATE: u16 = 0;
/// So long an answer that nobody gets is read.
const DISCARD_MAX: Duration = Duration::from_secs(5);

/// What the access log says of a request.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) host: String,
    /// The client's address.
    pub(crate) client: Option<IpAddr>,
    pub(crate) listener: Option<Arc<str>>,
    pub(crate) route: Option<Arc<str>>,
    /// The last one tried.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) attempts: usize,
    /// Why it was refused.
    pub(crate) refused: Option<Refusal>,
    /// Why a filter answered it.
    pub(crate) said: Option<Why>,
    /// Its span, where traces go somewhere.
    pub(crate) span: Option<Started>,
}

impl Trace {
    /// Who failed, where somebody did: the client, an endpoint, or the gateway with what it was told.
    pub(crate) fn failed(&self, code: u16) -> Option<&'static str> {
        match &self.refused {
            Some(refusal) if refusal.status.is_client_error() => Some("client"),
            _ if code < 500 => None,
            _ => Some(if self.endpoint.is_some() { "endpoint" } else { "gateway" }),
        }
    }

    /// Why it was answered by us, where it was.
    pub(crate) fn why(&self) -> Option<&str> {
        let said = self.said.as_ref().map(|Why(why)| why.as_str());
        said.or(self.refused.as_ref().map(|refusal| refusal.why.as_str()))
    }

    /// The cluster of the last endpoint; empty: the hub's own network, or nobody.
    pub(crate) fn cluster(&self) -> &str {
        self.endpoint.as_ref().map_or("", |endpoint| endpoint.address.cluster_name())
    }
}

/// Where a request goes, and on whose behalf.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a> {
    pub(crate) plane: &'a Arc<Plane>,
    pub(crate) snapshot: &'a Arc<Snapshot>,
    /// The upstream's index.
    pub(crate) upstream: usize,
    pub(crate) host: &'a str,
    pub(crate) standing: &'a Standing,
    /// The standing's number.
    pub(crate) place: usize,
    /// Of the client's connection.
    pub(crate) ends: Ends,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) backend_timeout: Option<Duration>,
    /// What the route wants tried again.
    pub(crate) retry: Option<&'a Retry>,
    /// The endpoint of the request's session.
    pub(crate) session: Option<Picked>,
    /// By what its endpoint is chosen, where the route says that and not the policy.
    pub(crate) key: Option<u64>,
}

/// A request as it is sent: the same for every attempt.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    Plain(Plain<'a>),
    Whole(&'a Parts),
}

/// One whose head is there in octets, for endpoints that speak HTTP/1.1.
#[derive(Clone, Copy)]
pub(crate) struct Plain<'a> {
    pub(crate) octets: &'a [u8],
    /// How it frames its body.
    pub(crate) chunked: bool,
    pub(crate) is_head: bool,
    pub(crate) idempotent: bool,
    /// Where what comes before the answer is put.
    pub(crate) early: Option<&'a Early>,
}

impl Ask<'_> {
    fn is_idempotent(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.idempotent,
            Self::Whole(head) => is_idempotent(&head.method),
        }
    }

    /// Where what comes before the answer is put; nowhere: the client can't be told.
    pub(super) fn early(&self) -> Option<&Early> {
        match self {
            Self::Plain(plain) => plain.early,
            Self::Whole(head) => head.extensions.get::<Arc<Early>>().map(|early| &**early),
        }
    }
}

/// What an endpoint answered, before filters.
pub(crate) struct Answered {
    answer: Answer,
    in_flight: InFlight,
    told: Option<Told>,
}

/// An answer on HTTP/1.1, what it is in flight as, and what the request's body is told.
type H1 = (Box<http1::Answer>, InFlight, Option<Told>);

impl Answered {
    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.answer.status()
    }

    /// As HTTP/1.1 gave it; else what it was.
    pub(crate) fn into_h1(self) -> Result<H1, Box<Self>> {
        match self.answer {
            Answer::H1(answer) => Ok((answer, self.in_flight, self.told)),
            answer => Err(Box::new(Self { answer, ..self })),
        }
    }

    /// The answer as the client gets it. `asked`: the protocol that it wanted to switch to.
    pub(crate) fn into_response(self, asked: Option<&HeaderValue>) -> Response<Reply> {
        let Self { answer, in_flight, told } = self;
        let (mut head, body) = match answer {
            Answer::H1(answer) => match answer.into_parts() {
                Some((head, body)) => (head, FromEndpoint::H1(Box::new(body))),
                None => return Refusal::new(StatusCode::BAD_GATEWAY, "the endpoint's answer is none").answer(),
            },
            Answer::H2(answer) => {
                let (head, body) = answer.into_parts();
                (head, FromEndpoint::H2(body))
            }
        };
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let stream = match body {
                FromEndpoint::H1(body) => body.into_stream(),
                FromEndpoint::H2(_) => None,
            };
            let (Some(asked), Some(stream)) = (asked, stream) else {
                return Refusal::new(StatusCode::BAD_GATEWAY, "the endpoint switched protocols unasked").answer();
            };
            let protocol = head.headers.get(http::header::UPGRADE).unwrap_or(asked).clone();
            headers::strip(&mut head.headers);
            headers::put_upgrade(&mut head.headers, &protocol);
            return Response::from_parts(head, Reply::switched(stream, in_flight));
        }
        headers::strip(&mut head.headers);
        head.version = Version::HTTP_11;
        Response::from_parts(head, Reply::of(body, in_flight, told))
    }
}

/// An answer on HTTP/1.1 frame by frame, for whoever can't pass its octets on.
pub(crate) fn frames(answer: http1::Answer, in_flight: InFlight) -> Response<Reply> {
    Answered { answer: Answer::H1(Box::new(answer)), in_flight, told: None }.into_response(None)
}

impl<'a> Forward<'a> {
    /// Sends the request until somebody answers.
    pub(crate) fn run(
        self,
        ask: Ask<'a>,
        payload: Payload,
        trace: &mut Trace,
        alarm: &mut Alarm,
    ) -> impl Future<Output = Result<Answered, Refusal>> {
        // Made before the future is, which would have room for what they are made of, too.
        let mut attempts = Attempts::new(self, ask, payload);
        async move {
            let mut last = None;
            while trace.attempts < attempts.max {
                let Some(next) = attempts.next(trace.attempts) else { break };
                trace.attempts += 1;
                trace.endpoint = Some(Arc::clone(&endpoint(attempts.live, next.at).endpoint));
                match attempts.one(next, alarm).await {
                    Step::Answered(answered) => return Ok(answered),
                    Step::Next(refusal) => last = Some(refusal),
                    Step::End(refusal) => return Err(refusal),
                }
            }
            Err(last.unwrap_or_else(|| attempts.nobody()))
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
            client: client_number(self.ends.client.ip()),
            dice: plane.dice.roll(),
        }
    }
}

/// What one attempt came to.
enum Step {
    Answered(Answered),
    /// Another may do better; what is said if there is none.
    Next(Refusal),
    /// No further one may be made.
    End(Refusal),
}

/// The next endpoint to ask.
struct Next {
    at: Picked,
    /// What it takes of its cluster's capacity.
    seat: Option<Seat>,
    /// On a connection of its own: the one that was kept turned out to be closed.
    fresh: bool,
}

/// The attempts at one request: what was tried, and what may be.
struct Attempts<'a> {
    forward: Forward<'a>,
    ask: Ask<'a>,
    payload: Payload,
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
    /// Bounds the clusters.
    policy: Option<Arc<Policy>>,
    tried: Vec<Picked>,
    /// Clusters that have as much as they may.
    full: Vec<usize>,
    /// To be asked once more.
    again: Option<Picked>,
    /// An endpoint may have worked on it already: one more costs of the budget. Who was not reached, or is gone with its whole cluster,
    /// has no work by it.
    costs: bool,
    /// How often the route still wants it tried again.
    asked: usize,
    max: usize,
}

impl<'a> Attempts<'a> {
    fn new(forward: Forward<'a>, ask: Ask<'a>, payload: Payload) -> Self {
        let asked = forward.retry.map_or(0, |r| r.attempts);
        let question = forward.question();
        let remembered = &forward.snapshot.remembered[forward.upstream];
        let balance = question.policy().map(|p| &p.balance);
        if let Some(budget) = question.policy().and_then(|policy| policy.care.budget.as_ref()) {
            budget.request();
        }
        Self {
            live: &forward.snapshot.live[forward.upstream],
            tiers: question.tiers(&forward.plane.health, remembered, forward.place),
            method: match (forward.key, balance) {
                (Some(_), balance) => {
                    balance.map(|b| b.method).filter(|m| m.goes_by_key()).unwrap_or(BalanceMethod::RingHash)
                }
                (None, balance) => balance.map_or_else(BalanceMethod::default, |b| b.method),
            },
            key: match (forward.key, ask, balance.filter(|b| b.method.goes_by_key())) {
                (Some(key), ..) => key,
                (None, Ask::Whole(head), Some(balance)) => balance.key(&head.headers, forward.ends.client.ip()),
                _ => 0,
            },
            zone: place(forward.standing, &forward.snapshot.table.topology).zone,
            deadline: forward.request_timeout.map(|t| Instant::now() + t),
            replayable: payload.is_there() && ask.is_idempotent(),
            policy: question.policy().cloned(),
            tried: Vec::new(),
            full: Vec::new(),
            again: None,
            costs: false,
            asked,
            max: ATTEMPTS_MAX + asked,
            forward,
            ask,
            payload,
        }
    }

    /// Whom to ask after `made` attempts; nobody where all were tried, all are full, or the budget is spent.
    fn next(&mut self, made: usize) -> Option<Next> {
        if let Some(at) = self.again.take()
            && let Ok(seat) = self.seat(at)
        {
            return Some(Next { at, seat, fresh: true });
        }
        let (plane, now) = (self.forward.plane, Instant::now());
        let mut picked = self.pick(now);
        if picked.is_none() && self.forward.retry.is_some() && !self.tried.is_empty() {
            // A route that wants a retry wants it also of an endpoint that was asked before.
            self.tried.clear();
            picked = self.pick(now);
        }
        let (at, seat) = picked?;
        if made > 0 && self.costs {
            let own = self.policy.as_ref().and_then(|policy| policy.care.budget.as_ref());
            let allowed = own.unwrap_or(&plane.budget).retry(now);
            plane.metrics.retried(allowed);
            if !allowed {
                return None;
            }
        }
        self.tried.push(at);
        Some(Next { at, seat, fresh: false })
    }

    /// An endpoint that was not tried yet, of a cluster that takes one more.
    fn pick(&mut self, now: Instant) -> Option<(Picked, Option<Seat>)> {
        let (method, key, session) = (self.method, self.key, self.forward.session);
        let care = self.policy.as_ref().map(|policy| &*policy.care);
        loop {
            let heeded = self.forward.plane.health.heeds();
            let wish = Wish { method, key, session, zone: self.zone.as_deref(), full: &self.full, care, heeded };
            let at = pick(self.live, &self.tiers, &wish, &self.tried, &self.forward.plane.dice, now)?;
            match self.seat(at) {
                Ok(seat) => return Some((at, seat)),
                Err(Full) => self.full.push(at.0),
            }
        }
    }

    fn seat(&self, at: Picked) -> Result<Option<Seat>, Full> {
        seat(self.forward.plane, self.policy.as_deref(), self.live, at.0)
    }

    /// What is said where nobody was asked.
    fn nobody(&self) -> Refusal {
        let is_bounded = self.policy.as_ref().is_some_and(|policy| policy.care.requests_max < usize::MAX);
        let is_there = self.tiers.iter().flatten().any(|part| !self.live.parts[*part].endpoints.is_empty());
        if self.full.is_empty() && !(is_bounded && is_there) {
            return Refusal::unavailable("no endpoint is ready");
        }
        Refusal::full()
    }

    async fn one(&mut self, Next { at, seat, fresh }: Next, alarm: &mut Alarm) -> Step {
        let (plane, endpoint) = (self.forward.plane, &endpoint(self.live, at).endpoint);
        let in_flight = InFlight::new(Arc::clone(endpoint), seat);
        let began = Instant::now();
        let own = self.forward.backend_timeout.map(|t| began + t);
        let limit = [self.deadline, own].into_iter().flatten().min();
        // Futures of what is rare are put elsewhere: every connection has room for this one.
        let idle = if fresh { None } else { Pool::idle(endpoint) };
        let got = match idle {
            Some(idle) => Some(Ok(idle)),
            None => Box::pin(within(limit, connected(plane, endpoint, self.forward.ends, fresh))).await,
        };
        let connection = match got {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                self.costs = false;
                plane.health.failed(endpoint, Failure::Connect);
                tracing::debug!(endpoint = %endpoint.address, %error, "connect failed");
                return Step::Next(Refusal::unreached(&error));
            }
            None => return Step::End(late()),
        };
        if endpoint.is_disabled() {
            self.costs = false;
            return Step::Next(Refusal::unavailable("the endpoint was disabled"));
        }
        let Some(body) = self.payload.take() else {
            return Step::End(Refusal::unavailable("the body of the request was sent already"));
        };
        endpoint.set_http();
        let (live, tiers, tried) = (self.live, &self.tiers, &self.tried);
        let elsewhere = || is_left(live, tiers, tried, plane.health.heeds(), Instant::now());
        let mut attempt = Attempt { plane, endpoint, replayable: self.replayable, elsewhere: &elsewhere, limit, alarm };
        let sent = attempt.send(connection, self.ask, body).await;
        if !matches!(sent, Sent::Answer(_))
            && let Some(refusal) = self.payload.refusal()
        {
            return Step::End(refusal);
        }
        if let Sent::Answer(answer) = &sent {
            plane.health.answered(endpoint, Some(began.elapsed()), answer.status() >= 500);
        }
        self.judge(sent, at, endpoint, in_flight).await
    }

    /// What an attempt says of the endpoint, and what follows from it.
    async fn judge(&mut self, sent: Sent, at: Picked, endpoint: &Arc<Endpoint>, in_flight: InFlight) -> Step {
        let plane = self.forward.plane;
        // Connections of HTTP/2 end with what is disabled.
        let sent = if matches!(sent, Sent::Lost(_)) && endpoint.is_disabled() { Sent::Disabled } else { sent };
        self.costs = !matches!(sent, Sent::Unsent(..) | Sent::Down | Sent::Disabled);
        match sent {
            Sent::Answer(answer) => {
                if self.payload.is_there() && self.is_wanted_again(answer.status()).await {
                    let status = StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::BAD_GATEWAY);
                    discard(plane, Answered { answer, in_flight, told: None });
                    return Step::Next(Refusal::new(status, "the endpoint answered with an error"));
                }
                Step::Answered(Answered { answer, in_flight, told: self.payload.answered() })
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
                if self.may_follow().await { Step::Next(refusal) } else { Step::End(refusal) }
            }
            // It answered: that says nothing of its health, and another would hardly say better.
            Sent::Malformed(why) => {
                plane.health.ok(endpoint, None);
                Step::End(Refusal::new(StatusCode::BAD_GATEWAY, format!("the endpoint's answer is malformed: {why}")))
            }
            Sent::Down => Step::Next(Refusal::unavailable("the endpoint went down")),
            // Whoever may be sent again goes on, but never into what is disabled; a POST hears of it at once.
            Sent::Disabled => {
                let refusal = Refusal::unavailable("the endpoint was disabled while it worked on the request");
                if self.replayable { Step::Next(refusal) } else { Step::End(refusal) }
            }
            Sent::Late if self.payload.is_there() && self.is_wanted_again(LATE).await => Step::Next(late()),
            Sent::Late => Step::End(late()),
        }
    }

    /// A connection was closed. One that was kept says nothing of its endpoint, which is asked once more.
    fn closed(&mut self, endpoint: &Endpoint, at: Picked, reused: bool) {
        self.again = Some(at).filter(|_| reused && !endpoint.is_disabled());
        if !reused {
            self.forward.plane.health.failed(endpoint, Failure::FirstByte);
        }
    }

    /// Whether a request may be sent again whose connection broke under it. HTTPRouteRetry, `attempts`: "the maximum number of times an
    /// individual request from the gateway to a backend should be retried".
    async fn may_follow(&mut self) -> bool {
        match self.forward.retry {
            Some(retry) if retry.counted => self.payload.is_there() && self.is_left(retry).await,
            _ => self.replayable,
        }
    }

    /// Whether the route wants that tried again; waits as it says.
    async fn is_wanted_again(&mut self, status: u16) -> bool {
        let Some(retry) = self.forward.retry else { return false };
        (status == LATE || retry.codes.contains(&status)) && self.is_left(retry).await
    }

    /// Takes one of the times that the route wants it tried again, if there is one, and waits as it says.
    async fn is_left(&mut self, retry: &Retry) -> bool {
        let now = Instant::now();
        if self.asked == 0 || self.deadline.is_some_and(|deadline| now + retry.backoff >= deadline) {
            return false;
        }
        self.asked -= 1;
        if !retry.backoff.is_zero() {
            Box::pin(tokio::time::sleep(retry.backoff)).await;
        }
        true
    }
}

/// Reads an answer that nobody gets, so that its connection can be used again.
fn discard(plane: &Plane, answered: Answered) {
    let mut rest = answered.into_response(None).into_body();
    let end = plane.end.clone();
    let read = async move { while let Some(Ok(_)) = rest.frame().await {} };
    plane.tracker.spawn(async move { end.run_until_cancelled(tokio::time::timeout(DISCARD_MAX, read)).await });
}

fn late() -> Refusal {
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "no answer in time")
}

/// A connection; where that takes long, others of the cluster are looked at meanwhile.
async fn connected(plane: &Plane, endpoint: &Arc<Endpoint>, ends: Ends, fresh: bool) -> io::Result<Connection> {
    let mut get = pin!(plane.pool.get(endpoint, ends, fresh));
    if let Ok(got) = tokio::time::timeout(SLOW_CONNECT, &mut get).await {
        return got;
    }
    plane.health.look_around(endpoint);
    get.await
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

/// Waits until `limit` at most.
async fn within<T>(limit: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout_at(limit, work).await.ok(),
        None => Some(work.await),
    }
}
