//! `extProc`: a processor of Envoy's protocol sees a request and its answer, changes them, or answers itself.
//!
//! What it is shown is Envoy's ProcessingMode: headers, bodies (not, piece by piece, whole) and trailers, each way. It stands after those that
//! authenticate and before the cache, so that it sees every request. A processor that fails lets nobody pass, unless failing is open.
//! Not here: metadata and attributes, BUFFERED_PARTIAL, FULL_DUPLEX_STREAMED, and choosing the route anew.
//! Source: envoy.service.ext_proc.v3 (external_processor.proto), envoy.extensions.filters.http.ext_proc.v3 (processing_mode.proto).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{BodyMode, ExtProc, HeaderMode};
use bytes::Bytes;
use http::{Response, StatusCode, header, response};
use http_body::Body as _;
use serde_json::{Map, Value};

use super::forward_auth::ANSWER_MAX;
use super::{Guard, Guarded, Making, parameters, said, time};
use crate::http::is_grpc;
use crate::policy::carried::{Carried, Read, read, whole};
use crate::policy::peer::Peer;
use crate::policy::process::body::{Passing, Way, again};
use crate::policy::process::call::{Exchange, Told};
use crate::policy::process::message::{self as envoy, CommonResponse, HttpHeaders, ProcessingMode, Said};
use crate::policy::{Asked, Back};

const BUFFER_BYTES_MAX: u32 = 1 << 20;

#[derive(Debug)]
struct Processor {
    peer: Arc<Peer>,
    mode: Mode,
    may_override: bool,
    buffer_bytes_max: usize,
    within: Duration,
    open: bool,
}

/// What the processor is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    request_headers: bool,
    request_body: BodyMode,
    request_trailers: bool,
    response_headers: bool,
    response_body: BodyMode,
    response_trailers: bool,
}

impl Mode {
    fn of(settings: &ExtProc) -> Self {
        let is = |written: Option<HeaderMode>, default| written.unwrap_or(default) == HeaderMode::Send;
        Self {
            request_headers: is(settings.request_header_mode, HeaderMode::Send),
            request_body: settings.request_body_mode.unwrap_or_default(),
            request_trailers: is(settings.request_trailer_mode, HeaderMode::Skip),
            response_headers: is(settings.response_header_mode, HeaderMode::Send),
            response_body: settings.response_body_mode.unwrap_or_default(),
            response_trailers: is(settings.response_trailer_mode, HeaderMode::Skip),
        }
    }

    /// As the processor wants it from now on; what it can't be shown stays as it is.
    fn overridden(&mut self, wanted: &ProcessingMode) {
        let headers = |mode: &mut bool, wanted: i32| match envoy::HeaderMode::try_from(wanted) {
            Ok(envoy::HeaderMode::Send) => *mode = true,
            Ok(envoy::HeaderMode::Skip) => *mode = false,
            Ok(envoy::HeaderMode::Default) | Err(_) => {}
        };
        let body = |mode: &mut BodyMode, wanted: i32| match envoy::BodyMode::try_from(wanted) {
            Ok(envoy::BodyMode::None) => *mode = BodyMode::None,
            Ok(envoy::BodyMode::Streamed) => *mode = BodyMode::Streamed,
            Ok(envoy::BodyMode::Buffered) => *mode = BodyMode::Buffered,
            Err(_) => {}
        };
        headers(&mut self.response_headers, wanted.response_headers);
        headers(&mut self.request_trailers, wanted.request_trailers);
        headers(&mut self.response_trailers, wanted.response_trailers);
        body(&mut self.request_body, wanted.request_body);
        body(&mut self.response_body, wanted.response_body);
    }
}

/// One request and its answer, and who looks at them.
struct Looking {
    exchange: Arc<Exchange>,
    mode: Mode,
    may_override: bool,
    buffer_bytes_max: usize,
    grpc: bool,
}

impl Looking {
    /// Shows something. What is said of names with a colon is kept out of the headers.
    async fn show(&mut self, shown: Said) -> Result<CommonResponse, Response<Bytes>> {
        let headers = matches!(shown, Said::RequestHeaders(_) | Said::ResponseHeaders(_));
        match self.exchange.show(shown).await? {
            Told::Instead(immediate) => Err(immediate.answer(self.grpc)),
            Told::Goes(common, wanted) => {
                if let Some(wanted) = wanted.filter(|_| headers && self.may_override) {
                    self.mode.overridden(&wanted);
                }
                Ok(common)
            }
        }
    }

    async fn request(&mut self, asked: &mut Asked<'_>) -> Result<(), Response<Bytes>> {
        if self.mode.request_headers {
            let shown = request_headers(asked);
            let mut common = self.show(shown).await?;
            change(asked, &common);
            if common.replaces() {
                replace(asked, common.body().unwrap_or_default());
                (self.mode.request_body, self.mode.request_trailers) = (BodyMode::None, false);
            }
        }
        if asked.body.is_end_stream() || asked.head.headers.contains_key(header::UPGRADE) {
            return Ok(());
        }
        match self.mode.request_body {
            BodyMode::Buffered => self.request_body(asked).await,
            BodyMode::None if !self.mode.request_trailers => Ok(()),
            shown => {
                let pieces = shown == BodyMode::Streamed;
                if pieces {
                    asked.head.headers.remove(header::CONTENT_LENGTH);
                }
                let passing = self.passing(Way::Request, (pieces, self.mode.request_trailers));
                asked.body.wrap(|body| Box::pin(passing(body)));
                Ok(())
            }
        }
    }

    async fn request_body(&mut self, asked: &mut Asked<'_>) -> Result<(), Response<Bytes>> {
        let read = asked.body.peek(self.buffer_bytes_max).await;
        let body = read.map_err(|_| said(StatusCode::BAD_REQUEST, "the body of the request is broken"))?;
        let body = body.ok_or_else(|| said(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long to be processed"))?;
        let mut common = self.show(Way::Request.body(body, true)).await?;
        change(asked, &common);
        if let Some(body) = common.body() {
            replace(asked, body);
        }
        Ok(())
    }

    fn passing(&self, way: Way, shown: (bool, bool)) -> impl FnOnce(Carried) -> Passing + use<> {
        let (exchange, grpc) = (Arc::clone(&self.exchange), self.grpc);
        move |body| Passing::new(body, exchange, way, shown, grpc)
    }

    async fn response(&mut self, head: &mut response::Parts, body: Carried) -> Result<Carried, Response<Bytes>> {
        if let Some(instead) = self.exchange.instead.get() {
            return Err(instead.clone());
        }
        let empty = body.is_end_stream();
        if self.mode.response_headers {
            let colon = [(":status", head.status.as_str())];
            let shown = Said::ResponseHeaders(HttpHeaders::of(&head.headers, &colon, empty));
            let mut common = self.show(shown).await?;
            restate(head, &common);
            if common.replaces() {
                head.headers.remove(header::CONTENT_LENGTH);
                return Ok(whole(common.body().unwrap_or_default()));
            }
        }
        if empty {
            return Ok(body);
        }
        match self.mode.response_body {
            BodyMode::Buffered => self.response_body(head, body).await,
            BodyMode::None if !self.mode.response_trailers => Ok(body),
            shown => {
                let pieces = shown == BodyMode::Streamed;
                if pieces {
                    head.headers.remove(header::CONTENT_LENGTH);
                }
                Ok(Box::pin(self.passing(Way::Response, (pieces, self.mode.response_trailers))(body)))
            }
        }
    }

    async fn response_body(&mut self, head: &mut response::Parts, body: Carried) -> Result<Carried, Response<Bytes>> {
        let read = read(body, self.buffer_bytes_max).await;
        let read = read.map_err(|_| said(StatusCode::BAD_GATEWAY, "the answer broke off"))?;
        let Read::Whole(all, trailers) = read else {
            return Err(said(StatusCode::BAD_GATEWAY, "the answer is too long to be processed"));
        };
        let mut common = self.show(Way::Response.body(all.clone(), trailers.is_none())).await?;
        restate(head, &common);
        let all = common.body().unwrap_or(all);
        head.headers.remove(header::CONTENT_LENGTH);
        let body = again(all, trailers);
        if !self.mode.response_trailers {
            return Ok(body);
        }
        Ok(Box::pin(self.passing(Way::Response, (false, true))(body)))
    }
}

fn request_headers(asked: &Asked<'_>) -> Said {
    let head = &asked.head;
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(asked.host);
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let scheme = if asked.tls { "https" } else { "http" };
    let colon = [(":method", head.method.as_str()), (":path", target), (":authority", host), (":scheme", scheme)];
    Said::RequestHeaders(HttpHeaders::of(&head.headers, &colon, asked.body.is_end_stream()))
}

/// Changes a request's headers and target.
fn change(asked: &mut Asked<'_>, common: &CommonResponse) {
    let target = common.change(&mut asked.head.headers, ":path");
    if let Some(target) = target.filter(|target| target.starts_with('/')).and_then(|target| target.parse().ok()) {
        asked.head.uri = target;
    }
}

fn replace(asked: &mut Asked<'_>, body: Bytes) {
    asked.head.headers.remove(header::CONTENT_LENGTH);
    asked.body.wrap(|_| whole(body));
}

/// Changes an answer's headers and status.
fn restate(head: &mut response::Parts, common: &CommonResponse) {
    let status = common.change(&mut head.headers, ":status");
    let status = status.and_then(|status| status.parse::<StatusCode>().ok());
    if let Some(status) = status.filter(|s| !s.is_informational() && !head.status.is_informational()) {
        head.status = status;
    }
}

#[async_trait]
impl Guard for Processor {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        // What a processor lets pass or changes need not be for others.
        asked.authorized = true;
        let mut looking = Looking {
            exchange: Exchange::new(&self.peer, asked.plane, self.within, self.open),
            mode: self.mode,
            may_override: self.may_override,
            buffer_bytes_max: self.buffer_bytes_max,
            grpc: is_grpc(&asked.head.headers),
        };
        if let Err(answer) = looking.request(asked).await {
            return Some(answer);
        }
        asked.backs.push(Box::new(looking));
        None
    }
}

#[async_trait]
impl Back for Looking {
    async fn answer(mut self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        match self.response(head, body).await {
            Ok(body) => body,
            Err(instead) => {
                let (given, body) = instead.into_parts();
                (head.status, head.headers) = (given.status, given.headers);
                whole(body)
            }
        }
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: ExtProc = parameters(written)?;
    let backend = settings.backend_ref.as_ref().ok_or("backendRef: it is absent")?;
    let mode = Mode::of(&settings);
    let sees = mode.request_headers || mode.response_headers || mode.request_trailers || mode.response_trailers;
    if !sees && mode.request_body == BodyMode::None && mode.response_body == BodyMode::None {
        return Err("requestHeaderMode and the other modes: the processor would see nothing".to_owned());
    }
    let max = settings.buffer_bytes_max.unwrap_or(BUFFER_BYTES_MAX);
    Ok(Arc::new(Processor {
        peer: (making.peer)(backend, true)?,
        mode,
        may_override: settings.allow_mode_override.unwrap_or(false),
        buffer_bytes_max: usize::try_from(max).unwrap_or(usize::MAX),
        within: time("timeout", settings.timeout.as_ref(), ANSWER_MAX)?,
        open: settings.fail_open.unwrap_or(false),
    }))
}
