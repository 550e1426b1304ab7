//! The straight line of a request: host, listener, route, filters, backend, forward, filters back, access log.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use serde_json::Value;
use tokio::time::Instant;

use super::body::Reply;
use super::early::Early;
use super::forward::{Ask, Forward, Trace};
use super::grpc_web::Web;
use super::refusal::{Refusal, grpc_kind, is_grpc_kind};
use super::server::Client;
use super::upload::{FromClient, Upload};
use super::{behind, headers, mirror};
use crate::acme;
use crate::balance::{Looked, Picked, draw, find, spoken};
use crate::filter::{Filter, Matched, Why};
use crate::http3;
use crate::plane::{Plane, Snapshot};
use crate::policy::process::attributes::Left;
use crate::policy::{self, Asked, normalise, pass, tell};
use crate::progress::Alarm;
use crate::session::Shown;
use crate::table::{Backend, ListenerTable, Rule, Unserved};

/// Answers one request, whatever happens.
pub(crate) async fn answer(plane: &Arc<Plane>, client: &Client, request: Request<FromClient>) -> Response<Reply> {
    let began = Instant::now();
    plane.budget.request();
    let line = Line::of(plane, || (request.method().to_string(), target(request.uri()), request.version()));
    let mut trace = Trace::default();
    let grpc = grpc_kind(request.headers());
    let alternative = http3::alternative(plane, client, || headers::authority(request.uri(), request.headers()));
    let mut response = match serve(plane, client, request, &mut trace).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(status = refusal.status.as_u16(), why = refusal.why, "refused");
            let answer = refusal.answer_to(grpc.as_ref());
            trace.refused = Some(refusal);
            answer
        }
    };
    // Of gRPC the refusal says more than the status.
    let code = trace.refused.as_ref().map_or_else(|| response.status(), |refusal| refusal.status).as_u16();
    let time = began.elapsed();
    plane.metrics.answered(
        trace.route.as_deref().unwrap_or_default(),
        response.status().as_u16(),
        trace.cluster(),
        time,
    );
    ended(plane, client, &trace, code, &line);
    told(plane, client, &trace, code, time, line);
    http3::tell(response.headers_mut(), alternative);
    response
}

/// Path and query, however the target is written; of what has none all of it.
fn target(uri: &Uri) -> String {
    uri.path_and_query().map_or_else(|| uri.to_string(), ToString::to_string)
}

/// What the access log and traces say of a request, where there are any: method, target, version.
pub(crate) struct Line(Option<(String, String, Version)>);

impl Line {
    /// These words, where somebody wants them.
    pub(crate) fn of(plane: &Plane, words: impl FnOnce() -> (String, String, Version)) -> Self {
        let wanted = plane.access.is_some()
            || plane.traces.is_some()
            || tracing::enabled!(target: "access", tracing::Level::DEBUG);
        Self(wanted.then(words))
    }

    /// Whether there is an access log.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }
}

/// Writes the access log.
pub(crate) fn told(plane: &Plane, client: &Client, trace: &Trace, code: u16, time: Duration, line: Line) {
    let Some((method, uri, version)) = line.0 else { return };
    let address = trace.client.unwrap_or_else(|| client.ends.client.ip());
    let endpoint = trace.endpoint.as_ref().map(|e| e.address.to_string());
    let why = trace.why();
    tracing::debug!(
        target: "access",
        client = %address, listener = trace.listener.as_deref().unwrap_or_default(), host = trace.host, method, uri, code,
        ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        route = trace.route.as_deref().unwrap_or_default(), cluster = trace.cluster(),
        endpoint = endpoint.as_deref().unwrap_or_default(), attempts = trace.attempts,
        failed = trace.failed(code).unwrap_or_default(), why = why.unwrap_or_default(),
    );
    let Some(access) = &plane.access else { return };
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(Value::from);
    access.line(|field| match field {
        "time" => Some(jiff::Timestamp::now().to_string().into()),
        "client" => Some(address.to_string().into()),
        "listener" => text(trace.listener.as_deref()),
        "host" => text(Some(&trace.host)),
        "method" => text(Some(&method)),
        "path" => text(Some(&uri)),
        "protocol" => Some(format!("{version:?}").into()),
        "status" => Some(code.into()),
        "ms" => Some((time.as_micros() as f64 / 1000.0).into()),
        "route" => text(trace.route.as_deref()),
        "cluster" => text(Some(trace.cluster())),
        "endpoint" => text(endpoint.as_deref()),
        "attempts" => Some(trace.attempts.into()),
        "failed" => text(trace.failed(code)),
        "why" => text(why),
        "trace" => trace.span.as_ref().map(|span| span.trace().into()),
        _ => None,
    });
}

/// Ends the request's span.
fn ended(plane: &Plane, client: &Client, trace: &Trace, code: u16, line: &Line) {
    let (Some(traces), Some(span), Some((method, uri, _))) = (&plane.traces, &trace.span, &line.0) else { return };
    let path = uri.split('?').next().unwrap_or_default();
    let route = trace.route.as_deref().unwrap_or_default();
    traces.end(
        span,
        format!("{method} {route}").trim_end().to_owned(),
        code,
        &[
            ("http.request.method", method.clone()),
            ("url.path", path.to_owned()),
            ("server.address", trace.host.clone()),
            ("client.address", trace.client.unwrap_or_else(|| client.ends.client.ip()).to_string()),
            ("atoll.route", route.to_owned()),
            ("atoll.cluster", trace.cluster().to_owned()),
            ("atoll.endpoint", trace.endpoint.as_ref().map(|e| e.address.to_string()).unwrap_or_default()),
            ("atoll.attempts", trace.attempts.to_string()),
            ("atoll.failed", trace.failed(code).unwrap_or_default().to_owned()),
        ],
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
    let address = plane.trusted.client(client.ends.client.ip(), &head.headers);
    trace.client = Some(address);
    if !client.tls
        && let Some(answer) = challenged(plane, &head)
    {
        return Ok(answer);
    }
    let snapshot = plane.snapshots.load_full().ok_or_else(|| Refusal::unavailable("no routes are known yet"))?;
    let policies = plane.policies.load_full().ok_or_else(|| Refusal::unavailable("no policies are known yet"))?;
    let listener = listener(&snapshot, client, &host)?;
    trace.listener = Some(Arc::clone(&listener.id));
    let entry =
        listener.route(&host, &head).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no route takes this"))?;
    let rule = &entry.rule;
    trace.route = Some(Arc::clone(&rule.route));
    match rule.refused.as_deref() {
        None => {}
        Some(Unserved::Broken(why)) => return Err(Refusal::ours("the route is broken", why)),
        Some(Unserved::Over(why)) => return Err(Refusal::over(why)),
    }
    let scheme = if client.tls { "https" } else { "http" };
    let upgrade = headers::upgrade(&head);
    let grpc = grpc_kind(&head.headers);
    let origin = head.headers.get(http::header::ORIGIN).filter(|_| !rule.filters.is_empty()).cloned();
    prepare(plane, &mut head, client, scheme, upgrade.as_ref());
    trace.span = plane.traces.as_ref().map(|traces| traces.begin(&mut head.headers, &plane.dice));
    let mut body = Upload::new(plane, body, false);
    let (head, body, route) = (&mut head, &mut body, &rule.route);
    let (snapshot, host, tls) = (&snapshot, host.as_str(), client.tls);
    let certificate = client.certificate.as_deref();
    let authorized = head.headers.contains_key(http::header::AUTHORIZATION);
    let (user, backs, behind) = (None, Vec::new(), None);
    let mut asked = Asked {
        plane,
        snapshot,
        head,
        body,
        ends: client.ends_of(address),
        tls,
        certificate,
        host,
        route,
        rule,
        authorized,
        user,
        left: Left::default(),
        backs,
        behind,
    };
    let matched = Matched { prefix: entry.matcher.prefix(), scheme, host, port: listener.port };
    if let Some(chain) = policies.chain(listener, route, rule.name.as_ref())
        && let Some(answer) = pass(&chain.guards, &mut asked).await
    {
        behind::begin(&mut asked, &chain, &matched);
        let answer = spoken_of(answer, grpc.as_ref(), trace);
        return Ok(policy::back(asked.backs, marked(rule, origin.as_ref(), answer)).await);
    }
    match routed(rule, &mut asked, &matched, upgrade, trace).await {
        Err(refusal) if asked.backs.is_empty() && rule.filters.is_empty() => Err(refusal),
        Err(refusal) => {
            let answer = marked(rule, origin.as_ref(), refusal.answer_to(grpc.as_ref()));
            trace.refused = Some(refusal);
            Ok(policy::back(asked.backs, answer).await)
        }
        Ok(response) => Ok(policy::back(asked.backs, response).await),
    }
}

/// What a CA that looks is answered, before any route (RFC 8555 §8.3).
fn challenged(plane: &Plane, head: &Parts) -> Option<Response<Reply>> {
    if !matches!(head.method, Method::GET | Method::HEAD) || !head.uri.path().starts_with(acme::PATH) {
        return None;
    }
    let mut answer = Response::new(Reply::own(plane.answers.at(head.uri.path())?));
    let kind = HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Some(answer)
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
        let answer = spoken_of(answer, grpc_kind(&asked.head.headers).as_ref(), trace);
        return Ok(back(rule, None, origin, answer));
    }
    let shown = rule.session.as_ref().and_then(|s| s.shown(&asked.head.headers, unix_seconds()));
    let kept = shown.and_then(|shown| kept(snapshot, rule, shown));
    let backend = match kept {
        Some((backend, _)) => backend,
        None => backend(plane, rule)?,
    };
    if let Some(answer) = filtered(&backend.filters, asked, matched).await {
        let answer = spoken_of(answer, grpc_kind(&asked.head.headers).as_ref(), trace);
        return Ok(back(rule, Some(backend), origin, answer));
    }
    // Who stands in answers where nobody else is there.
    let backend = rule.stand_in.as_deref().filter(|_| is_deserted(plane, snapshot, backend)).unwrap_or(backend);
    let (place, standing) = plane.clients.standing(asked.client());
    let upstream = *backend.target.as_ref().map_err(|why| Refusal::ours("the backend is missing", why))?;
    let forward = Forward {
        plane,
        snapshot,
        upstream,
        host: asked.host,
        standing,
        place,
        ends: asked.ends,
        request_timeout: rule.request_timeout,
        backend_timeout: rule.backend_timeout,
        retry: rule.retry.as_deref(),
        session: kept.map(|(_, at)| at),
        key: rule.key.as_ref().map(|parts| {
            let looked = Looked { head: asked.head, host: asked.host, tls: asked.tls, client: asked.client() };
            spoken(parts, &looked)
        }),
    };
    let mut body = asked.body.take();
    let h2 = snapshot.table.upstreams[upstream].h2;
    if h2 && is_grpc(&asked.head.headers) {
        body.wait();
    }
    let web = if h2 { Web::begin(&mut asked.head.headers) } else { None };
    if let Some(web) = web {
        body.wrap(|body| web.request(body));
    }
    let payload = mirror::copies(&forward, rule, backend, asked.head, body).await?;
    let answered = forward.run(Ask::Whole(asked.head), payload, trace, &mut Alarm::default()).await?;
    let mut response = answered.into_response(upgrade.as_ref());
    if let (Some(session), Some(endpoint)) = (&rule.session, &trace.endpoint)
        && shown.is_none_or(|shown| shown.endpoint != endpoint.id)
    {
        session.begin(response.headers_mut(), endpoint.id, asked.tls, unix_seconds());
    }
    if let Some(web) = web {
        response = web.answer(response);
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
    if matches!(head.version, Version::HTTP_2 | Version::HTTP_3) {
        is_whole(head)?;
    }
    let length = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if length > plane.limits.uri_bytes_max {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "the target is too long"));
    }
    Ok(())
}

/// What the library lets through of a head of HTTP/2, and nobody may read otherwise (RFC 9113 §8.1.1, §8.3.1).
fn is_whole(head: &Parts) -> Result<(), Refusal> {
    let scheme = head.uri.scheme_str();
    // Without an authority there is none to be seen.
    if !(matches!(scheme, Some("http" | "https")) || scheme.is_none() && head.uri.authority().is_none()) {
        return Err(Refusal::bad(":scheme is neither http nor https"));
    }
    if head.headers.get_all(http::header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::bad("more than one Content-Length"));
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if !target.is_ascii() { Err(Refusal::bad("the target is not ASCII")) } else { Ok(()) }
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
    tell(&mut head.headers, &plane.trusted, client.ends.client.ip(), scheme, || {
        u128::from(plane.dice.roll()) << 64 | u128::from(plane.dice.roll())
    });
    if let Some(protocol) = upgrade {
        headers::put_upgrade(&mut head.headers, protocol);
    }
    let target = head.uri.path_and_query().cloned();
    head.uri = target.and_then(begun).map_or_else(|| Uri::from_static("/"), Uri::from);
    let early = head.extensions.remove::<Arc<Early>>();
    head.extensions.clear();
    if let Some(early) = early {
        head.extensions.insert(early);
    }
}

/// A target with its slash, which only an authority may stand for (RFC 9112 §3.2.1).
fn begun(target: PathAndQuery) -> Option<PathAndQuery> {
    if target.as_str().starts_with('?') { target.to_string().parse().ok() } else { Some(target) }
}

/// Draws a backend by weight.
fn backend<'a>(plane: &Plane, rule: &'a Rule) -> Result<&'a Backend, Refusal> {
    let drawn = draw(&rule.backends, &plane.dice);
    drawn.ok_or_else(|| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the route has no backend"))
}

/// Whether a backend has no endpoint, but such as fail their health check.
fn is_deserted(plane: &Plane, snapshot: &Snapshot, backend: &Backend) -> bool {
    let (Ok(upstream), heeded) = (&backend.target, plane.health.heeds()) else { return true };
    snapshot.live[*upstream].parts.iter().flat_map(|part| &part.endpoints).all(|e| heeded && e.failing)
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

/// What a filter answered, as whoever asked understands it.
fn spoken_of(mut answer: Response<bytes::Bytes>, grpc: Option<&HeaderValue>, trace: &mut Trace) -> Response<Reply> {
    trace.said = answer.extensions_mut().remove::<Why>();
    match grpc.and_then(|kind| Refusal::grpc_of(&answer, kind)) {
        Some((refusal, told)) => {
            trace.refused = Some(refusal);
            told
        }
        None => answer.map(Reply::own),
    }
}

/// What filters of the route do with answers that are not a backend's.
fn marked(rule: &Rule, origin: Option<&HeaderValue>, answer: Response<Reply>) -> Response<Reply> {
    let (mut head, body) = answer.into_parts();
    rule.filters.iter().for_each(|filter| filter.refused(&mut head, origin));
    Response::from_parts(head, body)
}

/// Whether a gRPC client asks, which understands statuses of gRPC only.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| is_grpc_kind(kind.as_bytes()))
}
