//! `errorPages`: pages of one's own in the place of answers of some statuses, whoever gave them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::{ErrorPage, ErrorPages};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, response};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters};
use crate::policy::carried::{Carried, whole};
use crate::policy::{Asked, Back};

#[derive(Debug)]
struct Page {
    statuses: Vec<RangeInclusive<u16>>,
    body: Bytes,
    kind: HeaderValue,
    status: Option<StatusCode>,
}

impl Page {
    fn make(written: &ErrorPage) -> Result<Self, String> {
        let kind = written.content_type.as_deref().unwrap_or("text/html; charset=utf-8");
        let status = written.status.map(|s| StatusCode::from_u16(s).map_err(|_| format!("pages.status: {s} is none")));
        Ok(Self {
            statuses: written.statuses.iter().map(|s| statuses(s)).collect::<Result<_, _>>()?,
            body: Bytes::from(written.body.clone()),
            kind: HeaderValue::from_str(kind).map_err(|_| format!("pages.contentType: `{kind}` is none"))?,
            status: status.transpose()?,
        })
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
        Some((first, last)) => Ok(number(first)?..=number(last)?),
        None => number(written).map(|status| status..=status),
    }
}

#[derive(Debug, Clone)]
struct Pages(Arc<Vec<Page>>);

#[async_trait]
impl Guard for Pages {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let is_head = asked.head.method == Method::HEAD;
        asked.backs.push(Box::new(Instead { pages: Arc::clone(&self.0), is_head }));
        None
    }
}

struct Instead {
    pages: Arc<Vec<Page>>,
    is_head: bool,
}

#[async_trait]
impl Back for Instead {
    async fn answer(self: Box<Self>, head: &mut response::Parts, body: Carried) -> Carried {
        let status = head.status.as_u16();
        let Some(page) = self.pages.iter().find(|p| p.statuses.iter().any(|s| s.contains(&status))) else {
            return body;
        };
        for gone in [
            header::CONTENT_LENGTH,
            header::CONTENT_ENCODING,
            header::ETAG,
            header::LAST_MODIFIED,
            header::CONTENT_RANGE,
        ] {
            head.headers.remove(gone);
        }
        head.headers.insert(header::CONTENT_TYPE, page.kind.clone());
        head.status = page.status.unwrap_or(head.status);
        if self.is_head {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.body.len()));
            return whole(Bytes::new());
        }
        whole(page.body.clone())
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: ErrorPages = parameters(written)?;
    let pages = settings.pages.iter().map(Page::make).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Pages(Arc::new(pages))))
}
