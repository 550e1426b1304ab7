//! A question to an authorisation server, of Envoy's protocol or of HTTP, which `extAuthz` of policies and `ExternalAuth` of routes share.
//! Without an answer nobody passes.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header, response};

use super::asking::{Told, admit, mirrored, refuse};
use super::carried::Carried;
use super::envoy::{
    Address, AttributeContext, CHECK, CheckRequest, CheckResponse, HeaderValueOption, HttpRequest, HttpResponse,
    OkHttpResponse, PeerAttributes, RequestAttributes, SocketAddress, remove,
};
use super::peer::Peer;
use super::{Asked, Back, grpc};
use crate::filter::said;

/// How an authorisation server is asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) protocol: Protocol,
    pub(crate) told: Told,
    /// So much of the body goes along.
    pub(crate) body_bytes_max: Option<usize>,
    pub(crate) within: Duration,
}

/// Where metadata of authorisation servers stands, as Envoy has it.
const METADATA: &str = "envoy.filters.http.ext_authz";

/// What it speaks.
#[derive(Debug)]
pub(crate) enum Protocol {
    Grpc,
    Http {
        /// Before the request's own path.
        prefix: String,
        /// Headers of its answer that the backend gets.
        back: Vec<HeaderName>,
    },
}

impl Question {
    /// Asks; an answer is what the client gets.
    pub(crate) async fn ask(&self, peer: &Peer, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        asked.authorized = true;
        let body = match self.body_bytes_max {
            None => None,
            Some(max) => match asked.body.peek(max).await {
                Ok(Some(body)) => Some(body),
                // "If the body is larger than that size, then the body passed to the authorization endpoint must be truncated"; we
                // refuse instead what the server could not judge.
                Ok(None) => return Some(said(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long to be judged")),
                Err(_) => return Some(said(StatusCode::BAD_REQUEST, "the body of the request is broken")),
            },
        };
        let answered = match &self.protocol {
            Protocol::Grpc => self.by_grpc(peer, asked, body).await,
            Protocol::Http { prefix, back } => {
                let question = mirrored(asked.head, prefix, &self.told, body);
                peer.ask(asked.plane, question, self.within).await.map(|answer| {
                    if answer.head.status != StatusCode::OK {
                        return Some(refuse(answer, &asked.head.method));
                    }
                    admit(asked.head, &answer, back);
                    None
                })
            }
        };
        answered.unwrap_or_else(|why| {
            tracing::warn!(why, "no answer of an authorisation server, so nobody passes");
            Some(said(StatusCode::SERVICE_UNAVAILABLE, "nobody says whether this may pass"))
        })
    }

    async fn by_grpc(
        &self,
        peer: &Peer,
        asked: &mut Asked<'_>,
        body: Option<Bytes>,
    ) -> Result<Option<Response<Bytes>>, String> {
        let request = self.check(asked, body);
        let mut answer: CheckResponse = grpc::call(peer, asked.plane, CHECK, &request, self.within).await?;
        if let Some(metadata) = answer.dynamic_metadata.take() {
            asked.left.leave(METADATA, metadata);
        }
        let code = answer.status.map_or(0, |status| status.code);
        match (code, answer.http_response) {
            (0, Some(HttpResponse::Ok(ok))) => {
                pass(asked, ok);
                Ok(None)
            }
            (0, None) => Ok(None),
            // Yes and no at once is no.
            (_, Some(HttpResponse::Denied(denied))) => {
                let status = denied.status.and_then(|s| StatusCode::from_u16(u16::try_from(s.code).ok()?).ok());
                let mut refused = Response::new(Bytes::from(denied.body));
                *refused.status_mut() = status.unwrap_or(StatusCode::FORBIDDEN);
                denied.headers.iter().for_each(|header| header.apply(refused.headers_mut(), true));
                Ok(Some(refused))
            }
            _ => Ok(Some(said(StatusCode::FORBIDDEN, "this may not pass"))),
        }
    }

    fn check(&self, asked: &Asked<'_>, body: Option<Bytes>) -> CheckRequest {
        let head = &*asked.head;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let told = self.told.of(&head.headers);
        let mut headers = std::collections::HashMap::new();
        for name in told.keys() {
            let all = told.get_all(name).iter().map(text).collect::<Vec<_>>().join(",");
            headers.insert(name.as_str().to_owned(), all);
        }
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let host = head.headers.get(header::HOST).map(text).unwrap_or_default();
        let scheme = if asked.tls { "https" } else { "http" };
        for (name, value) in
            [(":method", head.method.as_str()), (":path", &path), (":authority", &host), (":scheme", scheme)]
        {
            headers.insert(name.to_owned(), value.to_owned());
        }
        let body = body.unwrap_or_default();
        let as_text = std::str::from_utf8(&body).map(str::to_owned);
        let http = HttpRequest {
            id: head.headers.get("x-request-id").map(text).unwrap_or_default(),
            method: head.method.as_str().to_owned(),
            headers,
            path,
            host,
            scheme: scheme.to_owned(),
            size: i64::try_from(http_body::Body::size_hint(&*asked.body).exact().unwrap_or_default()).unwrap_or(-1),
            protocol: "HTTP/1.1".to_owned(),
            raw_body: if as_text.is_err() { body.to_vec() } else { Vec::new() },
            body: as_text.unwrap_or_default(),
        };
        let address =
            SocketAddress { address: asked.client().to_string(), port_value: asked.ends.client.port().into() };
        let source = PeerAttributes {
            address: Some(Address { socket_address: Some(address) }),
            principal: asked.user.clone().unwrap_or_default(),
        };
        let request = Some(RequestAttributes { http: Some(http) });
        CheckRequest { attributes: Some(AttributeContext { source: Some(source), destination: None, request }) }
    }
}

/// Puts into the request what a server that said yes wants there.
fn pass(asked: &mut Asked<'_>, ok: OkHttpResponse) {
    ok.headers_to_remove.iter().for_each(|name| remove(&mut asked.head.headers, name));
    ok.headers.iter().for_each(|header| header.apply(&mut asked.head.headers, false));
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        let old = asked.head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
        let goes = |pair: &&str| {
            let name = name(pair);
            !ok.query_parameters_to_remove.contains(&name) && !ok.query_parameters_to_set.iter().any(|q| q.key == name)
        };
        let set = ok.query_parameters_to_set.iter().map(|q| format!("{}={}", q.key, q.value));
        let query = old.filter(goes).map(str::to_owned).chain(set).collect::<Vec<_>>().join("&");
        let mark = if query.is_empty() { "" } else { "?" };
        if let Ok(uri) = format!("{}{mark}{query}", asked.head.uri.path()).parse() {
            asked.head.uri = uri;
        }
    }
    if !ok.response_headers_to_add.is_empty() {
        asked.backs.push(Box::new(Added(ok.response_headers_to_add)));
    }
}

struct Added(Vec<HeaderValueOption>);

#[async_trait]
impl Back for Added {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        self.0.iter().for_each(|header| header.apply(&mut head.headers, true));
        body
    }
}
