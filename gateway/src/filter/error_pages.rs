//! `errorPages`: pages of one's own in the place of answers of some statuses, whoever gave them. A page is written in the policy, or given by a
//! server that is asked for it as ingress-nginx asks its default backend; where that gives none the answer stays as it was.
//!
//! Source: ingress-nginx, "Custom errors".

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::ingress::SERVICE;
use atoll_api::kinds::route_policy::filters::{ErrorPage, ErrorPages};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, response};
use serde_json::{Map, Value};

use super::forward_auth::ANSWER_MAX;
use super::{Guard, Guarded, Making, header_name, parameters};
use crate::plane::Plane;
use crate::policy::carried::{Carried, whole};
use crate::policy::peer::Peer;
use crate::policy::{Asked, Back};

#[derive(Debug)]
struct Page {
    statuses: Vec<RangeInclusive<u16>>,
    from: From,
    status: Option<StatusCode>,
}

/// Where a page comes from.
#[derive(Debug)]
enum From {
    Here { body: Bytes, kind: HeaderValue },
    There { peer: Arc<Peer>, told: HeaderMap },
    Nowhere,
}

impl Page {
    fn make(written: &ErrorPage, making: &Making<'_>) -> Result<Self, String> {
        let kind = written.content_type.as_deref().unwrap_or("text/html; charset=utf-8");
        let status = written.status.map(|s| StatusCode::from_u16(s).map_err(|_| format!("pages.status: {s} is none")));
        let from = match &written.backend_ref {
            None => From::Here {
                body: Bytes::from(written.body.clone()),
                kind: HeaderValue::from_str(kind).map_err(|_| format!("pages.contentType: `{kind}` is none"))?,
            },
            Some(_) if !written.body.is_empty() => return Err("pages: body or backendRef, not both".to_owned()),
            Some(backend) => {
                let mut told = HeaderMap::new();
                for named in &written.backend_headers {
                    let value = HeaderValue::from_str(&named.value);
                    let value = value.map_err(|_| format!("pages.backendHeaders: `{}` is no value", named.value))?;
                    told.insert(header_name("pages.backendHeaders", &named.name)?, value);
                }
                match (making.peer)(backend, false) {
                    Ok(peer) => From::There { peer, told },
                    // Pages protect nothing: an Ingress without the Service that gives them serves all the same, as under nginx.
                    Err(_) if backend.kind.as_deref() == Some(SERVICE) => From::Nowhere,
                    Err(why) => return Err(why),
                }
            }
        };
        let statuses = written.statuses.iter().map(|s| statuses(s)).collect::<Result<_, _>>()?;
        Ok(Self { statuses, from, status: status.transpose()? })
    }
}

/// `404`, `5xx` or `500-503`.
fn statuses(written: &str) -> Result<RangeInclusive<u16>, String> {
    let bad = || format!("pages.statuses: `{written}` is neither a status, like 404, nor 5xx, nor 500-503");
    let number = |text: &str| text.parse::<u16>().ok().filter(|s| (400..=599).contains(s)).ok_or_else(bad);
    if let Some(class) = written.strip_suffix("xx") {
        let first = class.parse::<u16>().ok().filter(|c| matches!(c, 4 | 5)).ok_or_else(bad)? * 100;
        return Ok(first..=first + 99);
    }
    match written.split_once('-') {
        Some((first, last)) => Some(number(first)?..=number(last)?).filter(|range| !range.is_empty()).ok_or_else(bad),
        None => number(written).map(|status| status..=status),
    }
}

#[derive(Debug, Clone)]
struct Pages(Arc<Vec<Page>>);

#[async_trait]
impl Guard for Pages {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let asks = self.0.iter().any(|page| matches!(page.from, From::There { .. }));
        let question = asks.then(|| Question { plane: Arc::clone(asked.plane), told: Question::told(asked.head) });
        let is_head = asked.head.method == Method::HEAD;
        asked.backs.push(Box::new(Instead { pages: Arc::clone(&self.0), is_head, question }));
        None
    }
}

/// What a server that gives pages is told of the request.
struct Question {
    plane: Arc<Plane>,
    told: HeaderMap,
}

/// Headers of a request that go along.
const ALONG: &[&str] = &["host", "x-request-id", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

impl Question {
    fn told(head: &Parts) -> HeaderMap {
        let mut told = HeaderMap::new();
        for name in ALONG {
            told.extend(head.headers.get(*name).map(|value| (HeaderName::from_static(name), value.clone())));
        }
        if let Some(accepted) = head.headers.get(header::ACCEPT) {
            told.insert("x-format", accepted.clone());
        }
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        if let Ok(target) = HeaderValue::from_str(target) {
            told.insert("x-original-uri", target);
        }
        told
    }

    /// Asks for the page of a status.
    async fn ask(&self, peer: &Peer, told: &HeaderMap, status: StatusCode) -> Option<(response::Parts, Bytes)> {
        let mut request = Request::new(Bytes::new());
        let headers = request.headers_mut();
        headers.clone_from(&self.told);
        headers.insert("x-code", HeaderValue::from(status.as_u16()));
        headers.extend(told.iter().map(|(name, value)| (name.clone(), value.clone())));
        match peer.ask(&self.plane, request, ANSWER_MAX).await {
            Ok(said) => Some((said.head, said.body)),
            Err(why) => {
                tracing::debug!(why, "no page for an error, so that is given as it is");
                None
            }
        }
    }
}

struct Instead {
    pages: Arc<Vec<Page>>,
    is_head: bool,
    question: Option<Question>,
}

#[async_trait]
impl Back for Instead {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        let status = head.status.as_u16();
        let Some(page) = self.pages.iter().find(|p| p.statuses.iter().any(|s| s.contains(&status))) else {
            return body;
        };
        let text = match (&page.from, &self.question) {
            (From::Here { body, kind }, _) => {
                for gone in [
                    header::CONTENT_LENGTH,
                    header::CONTENT_ENCODING,
                    header::ETAG,
                    header::LAST_MODIFIED,
                    header::CONTENT_RANGE,
                ] {
                    head.headers.remove(gone);
                }
                head.headers.insert(header::CONTENT_TYPE, kind.clone());
                body.clone()
            }
            (From::There { peer, told }, Some(question)) => {
                let Some((said, text)) = question.ask(peer, told, head.status).await else { return body };
                (head.status, head.headers) = (said.status, said.headers);
                crate::http::strip(&mut head.headers);
                head.headers.remove(header::CONTENT_LENGTH);
                text
            }
            (From::There { .. }, None) | (From::Nowhere, _) => return body,
        };
        head.status = page.status.unwrap_or(head.status);
        if self.is_head {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
            return whole(Bytes::new());
        }
        whole(text)
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: ErrorPages = parameters(written)?;
    let pages = settings.pages.iter().map(|page| Page::make(page, making)).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Pages(Arc::new(pages))))
}
