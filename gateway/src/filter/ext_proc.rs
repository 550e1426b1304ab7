//! `extProc`: a processor of Envoy's protocol sees a request and its answer, changes them, or answers itself.
//!
//! What it is shown is Envoy's ProcessingMode: headers, bodies (not, piece by piece, whole, their beginning, or in exchange for its own) and
//! trailers, each way; with attributes, and metadata that filters left. It stands after those that authenticate and before the cache, so
//! that it sees every request. A processor that fails lets nobody pass, unless failing is open. Not here: choosing the route anew.
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
use crate::policy::carried::{Before, Carried, Read, beginning, read, whole};
use crate::policy::peer::Peer;
use crate::policy::process::attributes::{self, Struct};
use crate::policy::process::body::{Passing, Way, again};
use crate::policy::process::call::{Beside, Exchange, Shown, Told};
use crate::policy::process::duplex::Duplex;
use crate::policy::process::message::{
    self as envoy, CommonResponse, HttpHeaders, ProcessingMode, ProtocolConfiguration, Said,
};
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
    request_attributes: Vec<String>,
    response_attributes: Vec<String>,
    beside: Arc<Beside>,
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
            Ok(envoy::BodyMode::BufferedPartial) => *mode = BodyMode::BufferedPartial,
            // Both sides settle that beforehand.
            Ok(envoy::BodyMode::FullDuplexStreamed) | Err(_) => {}
        };
        headers(&mut self.response_headers, wanted.response_headers);
        headers(&mut self.request_trailers, wanted.request_trailers);
        headers(&mut self.response_trailers, wanted.response_trailers);
        if self.request_body != BodyMode::FullDuplexStreamed {
            body(&mut self.request_body, wanted.request_body);
        }
        if self.response_body != BodyMode::FullDuplexStreamed {
            body(&mut self.response_body, wanted.response_body);
        }
    }

    fn protocol(&self) -> ProtocolConfiguration {
        let of = |mode| match mode {
            BodyMode::None => envoy::BodyMode::None,
            BodyMode::Streamed => envoy::BodyMode::Streamed,
            BodyMode::Buffered => envoy::BodyMode::Buffered,
            BodyMode::BufferedPartial => envoy::BodyMode::BufferedPartial,
            BodyMode::FullDuplexStreamed => envoy::BodyMode::FullDuplexStreamed,
        };
        let (request, response) = (of(self.request_body), of(self.response_body));
        ProtocolConfiguration { request_body_mode: request.into(), response_body_mode: response.into() }
    }
}

/// One request and its answer, and who looks at them.
struct Looking {
    exchange: Arc<Exchange>,
    mode: Mode,
    may_override: bool,
    buffer_bytes_max: usize,
    grpc: bool,
    /// Attributes of the answer, and what of them was known with the request.
    attributes: (Vec<String>, Struct),
}

impl Looking {
    /// Shows something. What is said of names with a colon is kept out of the headers.
    async fn show(&mut self, shown: Said) -> Result<CommonResponse, Response<Bytes>> {
        let headers = matches!(shown, Said::RequestHeaders(_) | Said::ResponseHeaders(_));
        let told = self.exchange.show(shown).await?;
        self.told(told, headers).map_err(|instead| *instead)
    }

    fn told(&mut self, told: Told, headers: bool) -> Result<CommonResponse, Box<Response<Bytes>>> {
        match told {
            Told::Instead(immediate) => Err(Box::new(immediate.answer(self.grpc))),
            Told::Goes(common, wanted) => {
                if let Some(wanted) = wanted.filter(|_| headers && self.may_override) {
                    self.mode.overridden(&wanted);
                }
                Ok(common)
            }
        }
    }

    fn duplex(&self, way: Way, body: Carried) -> Duplex {
        Duplex::new(body, Arc::clone(&self.exchange), way, self.grpc)
    }

    /// The body of the request goes to the processor, and the processor's own comes in its place.
    async fn request_duplex(&mut self, asked: &mut Asked<'_>) -> Result<(), Response<Bytes>> {
        // They say that there is a body.
        let (within, headers) = (asked.body.within(), request_headers(asked));
        let mut duplex = self.duplex(Way::Request, asked.body.take_out());
        if self.mode.request_headers {
            let head = duplex.head(headers, Shown::RequestHeaders);
            let late = |_| said(StatusCode::REQUEST_TIMEOUT, "the body of the request does not come");
            let told = tokio::time::timeout(within, head).await.map_err(late)??;
            let mut common = self.told(told, true).map_err(|instead| *instead)?;
            change(asked, &common);
            if common.replaces() {
                replace(asked, common.body().unwrap_or_default());
                return Ok(());
            }
        }
        asked.head.headers.remove(header::CONTENT_LENGTH);
        asked.body.wrap(|_| Box::pin(duplex));
        Ok(())
    }

    async fn request(&mut self, asked: &mut Asked<'_>) -> Result<(), Response<Bytes>> {
        let passes = asked.body.is_end_stream() || asked.head.headers.contains_key(header::UPGRADE);
        if self.mode.request_body == BodyMode::FullDuplexStreamed && !passes {
            return self.request_duplex(asked).await;
        }
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
            BodyMode::BufferedPartial => self.request_beginning(asked).await,
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

    /// Of a body that is too long to be kept its beginning is shown; the rest goes on as it is.
    async fn request_beginning(&mut self, asked: &mut Asked<'_>) -> Result<(), Response<Bytes>> {
        let (within, body) = (asked.body.within(), asked.body.take_out());
        let read = tokio::time::timeout(within, beginning(body, self.buffer_bytes_max)).await;
        let read = read.map_err(|_| said(StatusCode::REQUEST_TIMEOUT, "the body of the request does not come"))?;
        let read = read.map_err(|_| said(StatusCode::BAD_REQUEST, "the body of the request is broken"))?;
        let mut common = self.show(Way::Request.body(read.first.clone(), read.rest.is_none())).await?;
        change(asked, &common);
        let said = common.body();
        if said.is_some() {
            asked.head.headers.remove(header::CONTENT_LENGTH);
        }
        let body = self.continued(Way::Request, said.unwrap_or(read.first), read.rest, read.trailers);
        asked.body.wrap(|_| body);
        Ok(())
    }

    /// What was shown, or stands in its place, and the rest.
    fn continued(&self, way: Way, first: Bytes, rest: Option<Carried>, trailers: Option<http::HeaderMap>) -> Carried {
        let body: Carried = match rest {
            Some(rest) => Box::pin(Before { first: Some(first), rest }),
            None => again(first, trailers),
        };
        let shown = if way == Way::Request { self.mode.request_trailers } else { self.mode.response_trailers };
        if shown { Box::pin(self.passing(way, (false, true))(body)) } else { body }
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
        let (names, known) = std::mem::take(&mut self.attributes);
        self.exchange.describe(Way::Response, attributes::of_answer(&names, known, head));
        let colon = [(":status", head.status.as_str())];
        let shown = Said::ResponseHeaders(HttpHeaders::of(&head.headers, &colon, empty));
        if self.mode.response_body == BodyMode::FullDuplexStreamed && !empty {
            return self.response_duplex(head, body, shown).await;
        }
        if self.mode.response_headers {
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
            BodyMode::BufferedPartial => self.response_beginning(head, body).await,
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

    async fn response_duplex(
        &mut self,
        head: &mut response::Parts,
        body: Carried,
        headers: Said,
    ) -> Result<Carried, Response<Bytes>> {
        let mut duplex = self.duplex(Way::Response, body);
        head.headers.remove(header::CONTENT_LENGTH);
        if self.mode.response_headers {
            let told = duplex.head(headers, Shown::ResponseHeaders).await?;
            let mut common = self.told(told, true).map_err(|instead| *instead)?;
            restate(head, &common);
            if common.replaces() {
                return Ok(whole(common.body().unwrap_or_default()));
            }
        }
        Ok(Box::pin(duplex))
    }

    async fn response_beginning(
        &mut self,
        head: &mut response::Parts,
        body: Carried,
    ) -> Result<Carried, Response<Bytes>> {
        let read = beginning(body, self.buffer_bytes_max).await;
        let read = read.map_err(|_| said(StatusCode::BAD_GATEWAY, "the answer broke off"))?;
        let mut common = self.show(Way::Response.body(read.first.clone(), read.rest.is_none())).await?;
        restate(head, &common);
        let said = common.body();
        if said.is_some() {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        Ok(self.continued(Way::Response, said.unwrap_or(read.first), read.rest, read.trailers))
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
            exchange: Exchange::new(&self.peer, asked.plane, (self.within, self.open), &self.beside, &asked.left),
            mode: self.mode,
            may_override: self.may_override,
            buffer_bytes_max: self.buffer_bytes_max,
            grpc: is_grpc(&asked.head.headers),
            attributes: (self.response_attributes.clone(), attributes::of_request(&self.response_attributes, asked)),
        };
        looking.exchange.describe(Way::Request, attributes::of_request(&self.request_attributes, asked));
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
    attributes::check(&settings.request_attributes, false).map_err(|why| format!("requestAttributes: {why}"))?;
    attributes::check(&settings.response_attributes, true).map_err(|why| format!("responseAttributes: {why}"))?;
    let open = settings.fail_open.unwrap_or(false);
    // What it did not send back by then is lost.
    if open && [mode.request_body, mode.response_body].contains(&BodyMode::FullDuplexStreamed) {
        return Err("failOpen: with FullDuplexStreamed there is nothing to go on with without the processor".to_owned());
    }
    let max = settings.buffer_bytes_max.unwrap_or(BUFFER_BYTES_MAX);
    Ok(Arc::new(Processor {
        peer: (making.peer)(backend, true)?,
        mode,
        may_override: settings.allow_mode_override.unwrap_or(false),
        buffer_bytes_max: usize::try_from(max).unwrap_or(usize::MAX),
        within: time("timeout", settings.timeout.as_ref(), ANSWER_MAX)?,
        open,
        beside: Arc::new(Beside {
            protocol: mode.protocol(),
            forward: settings.forward_metadata,
            receive: settings.receive_metadata,
        }),
        request_attributes: settings.request_attributes,
        response_attributes: settings.response_attributes,
    }))
}
