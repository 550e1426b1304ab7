//! What both ways of one request say to its processor, and what it makes of that.
//!
//! Each thing that is said has one answer, which is waited for within a time; bodies of which pieces come and go on their own are the exception
//! ([`super::duplex`]). A processor that ends its stream well wants to see no more, and all goes on without it. One that fails is done without
//! where failing is open; else nobody passes. Source: envoy.service.ext_proc.v3.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::attributes::{Left, OWN, Struct};
use super::body::Way;
use super::line::Line;
use super::message::{Answer, CommonResponse, ImmediateResponse, ProcessingMode, Said};
use super::message::{ProcessingRequest, ProcessingResponse, ProtocolConfiguration};
use crate::filter::said;
use crate::plane::Plane;
use crate::policy::grpc;
use crate::policy::peer::Peer;

/// What a processor makes of something that it was shown.
#[derive(Debug)]
pub(crate) enum Told {
    /// It goes on, changed like that; and so much of the rest is shown from now on.
    Goes(CommonResponse, Option<ProcessingMode>),
    /// The client gets this instead.
    Instead(ImmediateResponse),
}

/// What a processor is told and may say beside messages.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// What it is told first of how bodies are shown.
    pub(crate) protocol: ProtocolConfiguration,
    /// Metadata of these namespaces it sees.
    pub(crate) forward: Vec<String>,
    /// And of these it may leave some.
    pub(crate) receive: Vec<String>,
}

/// What both ways of one request say to its processor.
pub(crate) struct Exchange {
    line: Line,
    pub(crate) within: Duration,
    /// A processor that fails is done without.
    open: bool,
    beside: Arc<Beside>,
    began: AtomicBool,
    /// What filters left for each other.
    left: Left,
    /// Attributes by way, sent with what is said first of it.
    attributes: [Mutex<Option<Struct>>; 2],
    /// What the client gets in the place of an answer, once a body was broken off.
    pub(crate) instead: OnceLock<Response<Bytes>>,
}

impl Exchange {
    pub(crate) fn new(
        peer: &Arc<Peer>,
        plane: &Arc<Plane>,
        (within, open): (Duration, bool),
        beside: &Arc<Beside>,
        left: &Left,
    ) -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(peer, plane),
            within,
            open,
            beside: Arc::clone(beside),
            began: AtomicBool::new(false),
            left: left.clone(),
            attributes: Default::default(),
            instead: OnceLock::new(),
        })
    }

    /// What is sent with what is said first of a way.
    pub(crate) fn describe(&self, way: Way, attributes: Struct) {
        let attributes = Some(attributes).filter(|attributes| !attributes.fields.is_empty());
        *self.attributes[way as usize].lock().unwrap_or_else(PoisonError::into_inner) = attributes;
    }

    /// Shows something, and waits for what is made of it.
    ///
    /// # Errors
    /// What the client gets, because nobody says that it may pass.
    pub(crate) async fn show(&self, shown: Said) -> Result<Told, Response<Bytes>> {
        let why = match self.ask(shown).await {
            Ok(told) => return Ok(told),
            Err(why) if self.open => {
                tracing::warn!(why, "a processor fails, and is done without");
                return Ok(Told::Goes(CommonResponse::default(), None));
            }
            Err(why) => why,
        };
        Err(self.fails(why))
    }

    async fn ask(&self, shown: Said) -> Result<Told, String> {
        if let Some(how) = self.line.over() {
            return how.map(|()| Told::Goes(CommonResponse::default(), None));
        }
        let part = shown.part();
        let asking = async {
            self.say(shown).await?;
            std::future::poll_fn(|cx| self.poll_heard(part.way(), cx)).await
        };
        let answered = tokio::time::timeout(self.within, asking).await;
        let told = match answered.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(Some(response)) => response.told(part).ok_or_else(|| "it answers something else".to_owned()),
            Ok(None) => return Ok(Told::Goes(CommonResponse::default(), None)),
            Err(why) => Err(why),
        };
        told.map_err(|why| {
            let why = format!("{}: {why}", self.line.name());
            self.line.end(Err(why.clone()));
            why
        })
    }

    /// Nobody passes from now on. Returns what the client gets.
    pub(super) fn fails(&self, why: String) -> Response<Bytes> {
        tracing::warn!(why, "a processor fails, so nobody passes");
        self.line.end(Err(why));
        said(StatusCode::SERVICE_UNAVAILABLE, "a processor of this route says nothing of this")
    }

    /// Says something, with what goes beside it.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(crate) async fn say(&self, shown: Said) -> Result<(), String> {
        let attributes = &self.attributes[shown.part().way() as usize];
        let attributes = attributes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let first = !self.began.swap(true, Ordering::Relaxed);
        let message = grpc::frame(&ProcessingRequest {
            said: Some(shown),
            metadata_context: self.left.of(&self.beside.forward),
            attributes: attributes.into_iter().map(|attributes| (OWN.to_owned(), attributes)).collect(),
            protocol_config: first.then(|| self.beside.protocol.clone()),
        });
        self.line.say(message).await
    }

    /// The next of what it says about a way; nothing where it wants to see no more.
    pub(super) fn poll_heard(
        &self,
        way: Way,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<ProcessingResponse>, String>> {
        let heard = std::task::ready!(self.line.poll_heard(way, cx));
        Poll::Ready(heard.map(|heard| {
            heard.map(|mut response| {
                if let Some(metadata) = response.dynamic_metadata.take() {
                    self.left.receive(metadata, &self.beside.receive);
                }
                response
            })
        }))
    }

    /// This way asks no more.
    pub(super) fn leave(&self, way: Way) {
        self.line.leave(way);
    }
}

/// What of a request or an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    RequestHeaders,
    ResponseHeaders,
    RequestBody,
    ResponseBody,
    RequestTrailers,
    ResponseTrailers,
}

impl Shown {
    pub(super) fn way(self) -> Way {
        match self {
            Self::RequestHeaders | Self::RequestBody | Self::RequestTrailers => Way::Request,
            Self::ResponseHeaders | Self::ResponseBody | Self::ResponseTrailers => Way::Response,
        }
    }
}

impl Said {
    pub(super) fn part(&self) -> Shown {
        match self {
            Self::RequestHeaders(_) => Shown::RequestHeaders,
            Self::ResponseHeaders(_) => Shown::ResponseHeaders,
            Self::RequestBody(_) => Shown::RequestBody,
            Self::ResponseBody(_) => Shown::ResponseBody,
            Self::RequestTrailers(_) => Shown::RequestTrailers,
            Self::ResponseTrailers(_) => Shown::ResponseTrailers,
        }
    }
}

impl ProcessingResponse {
    /// Which way it is about; what stands in the place of an answer is about none.
    pub(super) fn way(&self) -> Option<Way> {
        match self.answer.as_ref()? {
            Answer::RequestHeaders(_) | Answer::RequestBody(_) | Answer::RequestTrailers(_) => Some(Way::Request),
            Answer::ResponseHeaders(_) | Answer::ResponseBody(_) | Answer::ResponseTrailers(_) => Some(Way::Response),
            Answer::Immediate(_) => None,
        }
    }

    /// What it says of that part; nothing where it speaks of another.
    pub(super) fn told(self, part: Shown) -> Option<Told> {
        let (of, common) = match self.answer? {
            Answer::Immediate(immediate) => return Some(Told::Instead(immediate)),
            Answer::RequestHeaders(said) => (Shown::RequestHeaders, said.response.unwrap_or_default()),
            Answer::ResponseHeaders(said) => (Shown::ResponseHeaders, said.response.unwrap_or_default()),
            Answer::RequestBody(said) => (Shown::RequestBody, said.response.unwrap_or_default()),
            Answer::ResponseBody(said) => (Shown::ResponseBody, said.response.unwrap_or_default()),
            Answer::RequestTrailers(said) => (Shown::RequestTrailers, CommonResponse::of(said)),
            Answer::ResponseTrailers(said) => (Shown::ResponseTrailers, CommonResponse::of(said)),
        };
        (of == part).then_some(Told::Goes(common, self.mode_override))
    }
}
