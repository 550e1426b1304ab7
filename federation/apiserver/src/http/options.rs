//! The query parameters and bodies of requests. In: text; out: typed options, or a 400 that names the parameter.

use serde_json::Value;

use crate::{proto, refusal::Refusal};

/// How unknown fields are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Validation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// All parameters that any verb knows. Unknown ones are ignored, as Kubernetes does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) limit: Option<usize>,
    pub(crate) continue_from: String,
    pub(crate) resource_version: String,
    pub(crate) exact_version: bool,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial: bool,
    pub(crate) timeout_s: Option<u64>,
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) force: bool,
    pub(crate) validation: Validation,
    pub(crate) propagation: String,
    pub(crate) orphan: bool,
}

impl Options {
    pub(crate) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            options.set(&unescape(key), unescape(value))?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), Refusal> {
        let bad = || Refusal::bad_request(format!("invalid value {value:?} for query parameter {key:?}"));
        let flag = || match value.as_str() {
            "" | "1" | "true" | "True" | "TRUE" => Ok(true),
            "0" | "false" | "False" | "FALSE" => Ok(false),
            _ => Err(bad()),
        };
        match key {
            "labelSelector" => self.label_selector = value,
            "fieldSelector" => self.field_selector = value,
            "limit" => self.limit = Some(value.parse().map_err(|_| bad())?).filter(|limit| *limit > 0),
            "continue" => self.continue_from = value,
            "resourceVersion" => self.resource_version = value,
            "resourceVersionMatch" => self.exact_version = value == "Exact",
            "watch" => self.watch = flag()?,
            "allowWatchBookmarks" => self.bookmarks = flag()?,
            "sendInitialEvents" => self.send_initial = flag()?,
            "timeoutSeconds" => self.timeout_s = Some(value.parse().map_err(|_| bad())?),
            "dryRun" => match value.as_str() {
                "All" => self.dry_run = true,
                "" => {}
                _ => return Err(bad()),
            },
            "fieldManager" => self.manager = value,
            "force" => self.force = flag()?,
            "fieldValidation" => {
                self.validation = match value.as_str() {
                    "Strict" => Validation::Strict,
                    "Warn" | "" => Validation::Warn,
                    "Ignore" => Validation::Ignore,
                    _ => return Err(bad()),
                }
            }
            "propagationPolicy" => self.propagation = value,
            // Nothing here needs time to end, so that only the form matters.
            "gracePeriodSeconds" => drop(value.parse::<u64>().map_err(|_| bad())?),
            "orphanDependents" => self.orphan = flag()?,
            _ => {}
        }
        Ok(())
    }
}

/// Percent-decodes one part of a query or path; `+` is a space.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut ahead = bytes.clone();
                let hex = [ahead.next(), ahead.next()].map(|b| b.and_then(|b| char::from(b).to_digit(16)));
                match hex {
                    [Some(high), Some(low)] => {
                        out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        bytes = ahead;
                    }
                    _ => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads a body as JSON, YAML or protobuf.
///
/// # Errors
/// 415 for another media type, 400 for what does not parse.
pub(crate) fn decode(media: &str, bytes: &[u8]) -> Result<Value, Refusal> {
    match media {
        "application/json" | "" | "*/*" => serde_json::from_slice(bytes)
            .map_err(|why| Refusal::bad_request(format!("couldn't get version/kind; json parse error: {why}"))),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml(bytes),
        proto::MEDIA => proto::decode(bytes),
        other => Err(Refusal::unsupported_media(format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other})"
        ))),
    }
}

/// Reads YAML (or JSON, which is YAML too).
pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, Refusal> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes).map_err(|why| Refusal::bad_request(format!("error decoding YAML: {why}")))?;
    serde_saphyr::from_str(text).map_err(|why| Refusal::bad_request(format!("error decoding YAML: {why}")))
}
