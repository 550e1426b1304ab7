//! The straight line of a request: host, listener, route, filters, backend, forward, filters back, access log.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::time::Instant;

use super::body::Reply;
use super::forward::{Ask, Forward, Trace};
use super::refusal::Refusal;
use super::server::Client;
use super::upload::{FromClient, Upload};
use super::{behind, headers, mirror};
use crate::balance::{Picked, draw, find};
use crate::filter::{Filter, Matched};
use crate::plane::{Plane, Snapshot};
use crate::policy::{self, Asked, normalise, pass, tell};
use crate::progress::Alarm;
use crate::session::Shown;
use crate::table::{Backend, ListenerTable, Rule};

/// Answers one request, whatever happens.
pub(crate) async fn answer(plane: &Arc<Plane>, client: &Client, request: Request<FromClient>) -> Response<Reply> {
    let began = Instant::now();
    plane.budget.request();
    let line = Line::of(|| (request.method().to_string(), request.uri().to_string()));
    let mut trace = Trace::default();
    let grpc = is_grpc(request.headers());
    let response = match serve(plane, client, request, &mut trace).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(status = refusal.status.as_u16(), why = refusal.why, "refused");
            if grpc { refusal.answer_grpc() } else { refusal.answer() }
        }
    };
    let code = response.status().as_u16();
    let time = began.elapsed();
    plane.metrics.answered(trace.route.as_deref().unwrap_or_default(), code, trace.cluster(), time);
    told(client, &trace, code, time, line);
    response
}

/// What the access log says of a request, where there is one.
pub(crate) struct Line(Option<(String, String)>);

impl Line {
    /// Method and target.
    pub(crate) fn of(words: impl FnOnce() -> (String, String)) -> Self {
        Self(tracing::enabled!(target: "access", tracing::Level::DEBUG).then(words))
    }
}

impl Line {
    /// Whether there is an access log.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }
}

/// Writes the access log.
pub(crate) fn told(client: &Client, trace: &Trace, code: u16, time: Duration, line: Line) {
    let Some((method, uri)) = line.0 else { return };
    tracing::debug!(
        target: "access",
        client = %trace.client.unwrap_or_else(|| client.peer.ip()), listener = trace.listener.as_deref().unwrap_or_default(), host = trace.host, method, uri, code,
        ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        route = trace.route.as_deref().unwrap_or_default(), cluster = trace.cluster(),
        endpoint = trace.endpoint.as_ref().map(|e| e.address.to_string()).unwrap_or_default(), attempts = trace.attempts,
    );
}

async fn serve(
    plane: &Arc<Plane>,
    client: &Client,
    request: Request<FromClient>,
    trace: &mut Trace,
) -> Result<Response<Reply>, Refusal> {
    let (mut head, body) = request.into_parts();
    check(plane, &head)?;
    normalise(&mut head).map_err(Refusal::bad)?;
    let host = headers::host(&mut head)?;
    trace.host.clone_from(&host);
    let address = plane.trusted.client(client.peer.ip(), &head.headers);
    trace.client = Some(address);
    let snapshot = plane.snapshots.load_full().ok_or_else(|| Refusal::unavailable("no routes are known yet"))?;
    let policies = plane.policies.load_full().ok_or_else(|| Refusal::unavailable("no policies are known yet"))?;
    let listener = listener(&snapshot, client, &host)?;
    trace.listener = Some(Arc::clone(&listener.id));
    let entry =
        listener.route(&host, &head).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no route takes this"))?;
    let rule = &entry.rule;
    trace.route = Some(Arc::clone(&rule.route));
    if let Some(why) = &rule.refused {
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the route is broken: {why}")));
    }
    let scheme = if client.tls { "https" } else { "http" };
    let upgrade = headers::upgrade(&head);
    let grpc = is_grpc(&head.headers);
    prepare(plane, &mut head, client, scheme, upgrade.as_ref());
    let mut body = Upload::new(plane, body, false);
    let (head, body, route) = (&mut head, &mut body, &rule.route);
    let (snapshot, host, tls) = (&snapshot, host.as_str(), client.tls);
    let authorized = head.headers.contains_key(http::header::AUTHORIZATION);
    let (user, backs, behind) = (None, Vec::new(), None);
    let mut asked =
        Asked { plane, snapshot, head, body, client: address, tls, host, route, rule, authorized, user, backs, behind };
    let matched = Matched { prefix: entry.matcher.prefix(), scheme, host, port: listener.port };
    if let Some(chain) = policies.chain(listener, route, rule.name.as_ref())
        && let Some(answer) = pass(&chain.guards, &mut asked).await
    {
        behind::begin(&mut asked, &chain, &matched);
        return Ok(policy::back(asked.backs, answer.map(Reply::own)).await);
    }
    match routed(rule, &mut asked, &matched, upgrade, trace).await {
        Err(refusal) if asked.backs.is_empty() => Err(refusal),
        Err(refusal) => {
            let answer = if grpc { refusal.answer_grpc() } else { refusal.answer() };
            Ok(policy::back(asked.backs, answer).await)
        }
        Ok(response) => Ok(policy::back(asked.backs, response).await),
    }
}

/// Filters of the route, backend, forward, and filters back.
pub(super) async fn routed(
    rule: &Rule,
    asked: &mut Asked<'_>,
    matched: &Matched<'_>,
    upgrade: Option<HeaderValue>,
    trace: &mut Trace,
) -> Result<Response<Reply>, Refusal> {
    let (plane, snapshot) = (asked.plane, asked.snapshot);
    let origin = asked.head.headers.get(http::header::ORIGIN).cloned();
    let origin = origin.as_ref();
    if let Some(answer) = filtered(&rule.filters, asked, matched).await {
        return Ok(back(rule, None, origin, answer.map(Reply::own)));
    }
    let shown = rule.session.as_ref().and_then(|s| s.shown(&asked.head.headers, unix_seconds()));
    let kept = shown.and_then(|shown| kept(snapshot, rule, shown));
    let backend = match kept {
        Some((backend, _)) => backend,
        None => backend(plane, rule)?,
    };
    if let Some(answer) = filtered(&backend.filters, asked, matched).await {
        return Ok(back(rule, Some(backend), origin, answer.map(Reply::own)));
    }
    let (place, standing) = plane.clients.standing(asked.client);
    let upstream = *backend
        .target
        .as_ref()
        .map_err(|why| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the backend is missing: {why}")))?;
    let forward = Forward {
        plane,
        snapshot,
        upstream,
        host: asked.host,
        standing,
        place,
        client: asked.client,
        request_timeout: rule.request_timeout,
        backend_timeout: rule.backend_timeout,
        retry: rule.retry.as_ref(),
        session: kept.map(|(_, at)| at),
    };
    let mut body = asked.body.take();
    if is_grpc(&asked.head.headers) && snapshot.table.upstreams[upstream].h2 {
        body.wait();
    }
    let payload = mirror::copies(&forward, rule, backend, asked.head, body).await?;
    let answered = forward.run(Ask::Whole(asked.head), payload, trace, &mut Alarm::default()).await?;
    let mut response = answered.into_response(upgrade.as_ref());
    if let (Some(session), Some(endpoint)) = (&rule.session, &trace.endpoint)
        && shown.is_none_or(|shown| shown.endpoint != endpoint.id)
    {
        session.begin(response.headers_mut(), endpoint.id, asked.tls, unix_seconds());
    }
    Ok(back(rule, Some(backend), origin, response))
}

/// Sends a request through filters of a route, until one answers.
async fn filtered(
    filters: &[Box<dyn Filter>],
    asked: &mut Asked<'_>,
    matched: &Matched<'_>,
) -> Option<Response<bytes::Bytes>> {
    for filter in filters {
        let answer = match filter.guard() {
            Some(guard) => guard.request(asked).await,
            None => filter.request(asked.head, matched),
        };
        if answer.is_some() {
            return answer;
        }
    }
    None
}

/// What no route can want.
fn check(plane: &Plane, head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served"));
    }
    let length = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if length > plane.limits.uri_bytes_max {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the target is too long"));
    }
    Ok(())
}

/// The listener that a request for `host` is for.
///
/// # Errors
/// There is none, or the connection is for another.
pub(crate) fn listener<'a>(
    snapshot: &'a Snapshot,
    client: &Client,
    host: &'a str,
) -> Result<&'a ListenerTable, Refusal> {
    let listener = snapshot.table.listener(client.slot, host);
    let listener = listener.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no listener takes this host"))?;
    // A connection that was opened for one listener's name does not reach another's (RFC 9110 §7.4).
    let opened = client.sni.as_deref().and_then(|name| snapshot.table.listener(client.slot, name));
    if opened.is_some_and(|opened| !Arc::ptr_eq(opened, listener)) {
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "the connection is for another host"));
    }
    Ok(listener)
}

/// The head as endpoints get it, before filters.
fn prepare(plane: &Plane, head: &mut Parts, client: &Client, scheme: &'static str, upgrade: Option<&HeaderValue>) {
    headers::strip(&mut head.headers);
    // We answer it ourselves, when we read the body.
    head.headers.remove(http::header::EXPECT);
    tell(&mut head.headers, &plane.trusted, client.peer.ip(), scheme, || {
        u128::from(plane.dice.roll()) << 64 | u128::from(plane.dice.roll())
    });
    if let Some(protocol) = upgrade {
        headers::put_upgrade(&mut head.headers, protocol);
    }
    let target = head.uri.path_and_query().cloned();
    head.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    head.extensions.clear();
}

/// Draws a backend by weight.
fn backend<'a>(plane: &Plane, rule: &'a Rule) -> Result<&'a Backend, Refusal> {
    let drawn = draw(&rule.backends, &plane.dice);
    drawn.ok_or_else(|| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the route has no backend"))
}

/// The backend and the endpoint that a session goes to; nothing where that is gone.
fn kept<'a>(snapshot: &Snapshot, rule: &'a Rule, shown: Shown) -> Option<(&'a Backend, Picked)> {
    rule.backends.iter().find_map(|backend| {
        let live = &snapshot.live[*backend.target.as_ref().ok()?];
        Some((backend, find(live, shown.endpoint)?))
    })
}

/// Whether an upstream speaks HTTP/1.1, and nothing of a request but where it comes from decides who answers.
pub(crate) fn passes(snapshot: &Snapshot, upstream: usize, host: &str) -> bool {
    let (table, upstream) = (&snapshot.table, &snapshot.table.upstreams[upstream]);
    let policy = upstream.policy.as_ref().or_else(|| table.host_policies.get(host));
    !upstream.h2 && policy.is_none_or(|policy| !policy.balance.method.goes_by_key())
}

fn unix_seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// Filters back.
fn back(
    rule: &Rule,
    backend: Option<&Backend>,
    origin: Option<&HeaderValue>,
    response: Response<Reply>,
) -> Response<Reply> {
    let (mut head, body) = response.into_parts();
    for filter in backend.iter().flat_map(|b| &b.filters).chain(&rule.filters) {
        filter.response(&mut head, origin);
    }
    Response::from_parts(head, body)
}

/// Whether a gRPC client asks, which understands statuses of gRPC only.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
