//! `clientCertificate`: who shows no certificate that the listener trusts is kept out, and the backend is told whose it was.
//!
//! Which authorities are trusted the listener says (Gateway tls.frontend.validation, or its options `atoll.dev/client-…`). Without TLS there
//! is no certificate. Source: ingress-nginx, "Client Certificate Authentication".

use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::ClientCertificate;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use regex::Regex;
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, parameters, said};
use crate::policy::Asked;

const CERTIFICATE: &str = "ssl-client-cert";
const VERIFY: &str = "ssl-client-verify";
const SUBJECT: &str = "ssl-client-subject-dn";
const ISSUER: &str = "ssl-client-issuer-dn";
/// A subject's pattern is at most that costly.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug)]
struct Wanted {
    required: bool,
    subject: Option<Regex>,
    forward: bool,
    error_page: Option<HeaderValue>,
}

#[async_trait]
impl Guard for Wanted {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        // What clients say of themselves is not believed.
        for name in [CERTIFICATE, VERIFY, SUBJECT, ISSUER] {
            asked.head.headers.remove(name);
        }
        let shown = asked.certificate;
        let trusted = shown.filter(|shown| shown.verified);
        if self.required && trusted.is_none() {
            return Some(self.refuse());
        }
        let names = shown.and_then(|shown| shown.names());
        let subject = names.as_ref().map_or("", |(subject, _)| subject.as_str());
        if self.subject.as_ref().is_some_and(|wanted| trusted.is_none() || !wanted.is_match(subject)) {
            return Some(said(StatusCode::FORBIDDEN, "the certificate is of somebody else"));
        }
        if trusted.is_some() {
            asked.authorized = true;
        }
        let mut tell = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                asked.head.headers.insert(name, value);
            }
        };
        tell(
            VERIFY,
            match (shown, trusted) {
                (None, _) => "NONE",
                (Some(_), None) => "FAILED:nobody looked who vouches for it",
                (Some(_), Some(_)) => "SUCCESS",
            },
        );
        if let Some((subject, issuer)) = &names {
            tell(SUBJECT, subject);
            tell(ISSUER, issuer);
        }
        if let Some(shown) = shown.filter(|_| self.forward) {
            tell(CERTIFICATE, &shown.escaped());
        }
        None
    }
}

impl Wanted {
    fn refuse(&self) -> Response<Bytes> {
        let Some(page) = &self.error_page else {
            return said(StatusCode::BAD_REQUEST, "a certificate that this host trusts is required");
        };
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::FOUND;
        answer.headers_mut().insert(header::LOCATION, page.clone());
        answer
    }
}

pub(super) fn make(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    let settings: ClientCertificate = parameters(written)?;
    let pattern = |text: &String| regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    let subject = settings.subject_pattern.as_ref().map(pattern).transpose();
    let page = settings.error_page.as_deref().map(HeaderValue::from_str).transpose();
    Ok(Arc::new(Wanted {
        required: settings.required.unwrap_or(true),
        subject: subject.map_err(|e| format!("subjectPattern: {e}"))?,
        forward: settings.forward.unwrap_or(false),
        error_page: page.map_err(|_| "errorPage: it is no URL".to_owned())?,
    }))
}
