//! `URLRewrite`: another host or path towards the backend. Also how a path is replaced, which redirects share.

use atoll_api::kinds::gateway::{HTTPPathModifier, HTTPRouteFilter};
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, header};

use super::{Filter, Made, Matched, Resolve, absent, refused};
use crate::table::Problem;

/// A new path.
#[derive(Debug)]
pub(super) enum NewPath {
    Full(String),
    Prefix(String),
}

impl NewPath {
    pub(super) fn make(written: &HTTPPathModifier, prefixed: bool) -> Result<Self, Problem> {
        let (path, whole) = match (written.modifier_type.as_str(), prefixed) {
            ("ReplaceFullPath", _) => (written.replace_full_path.clone(), true),
            ("ReplacePrefixMatch", true) => (written.replace_prefix_match.clone(), false),
            ("ReplacePrefixMatch", false) => {
                return Err(refused("ReplacePrefixMatch: all matches of the rule must be of type PathPrefix"));
            }
            (other, _) => return Err(refused(format!("path modifier `{other}` is unknown"))),
        };
        let path = path.ok_or_else(|| refused(format!("path modifier `{}`: no path", written.modifier_type)))?;
        let sample = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
        sample.parse::<PathAndQuery>().map_err(|_| refused(format!("`{path}` is no path")))?;
        Ok(if whole { Self::Full(sample) } else { Self::Prefix(path) })
    }

    /// The new path in the place of `path`, of which `prefix` was matched.
    pub(super) fn apply(&self, path: &str, prefix: Option<&str>) -> String {
        match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(new) => {
                let rest = path.strip_prefix(prefix.unwrap_or_default()).unwrap_or(path);
                let joined = format!("{}{rest}", new.trim_end_matches('/'));
                if joined.starts_with('/') { joined } else { format!("/{joined}") }
            }
        }
    }
}

#[derive(Debug)]
struct Rewrite {
    host: Option<HeaderValue>,
    path: Option<NewPath>,
}

impl Filter for Rewrite {
    fn request(&self, head: &mut http::request::Parts, matched: &Matched<'_>) -> Option<http::Response<bytes::Bytes>> {
        if let Some(host) = &self.host {
            head.headers.insert(header::HOST, host.clone());
        }
        if let Some(path) = &self.path {
            let path = path.apply(head.uri.path(), matched.prefix);
            let query = head.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
            // Both halves were parsed before, so together they parse.
            if let Ok(uri) = format!("{path}{query}").parse::<Uri>() {
                head.uri = uri;
            }
        }
        None
    }
}

pub(super) fn make(written: &HTTPRouteFilter, prefixed: bool, _: &mut dyn Resolve) -> Made {
    let settings = written.url_rewrite.as_ref().ok_or_else(|| absent("URLRewrite"))?;
    let host = settings
        .hostname
        .as_deref()
        .map(|host| HeaderValue::from_str(host).map_err(|_| refused(format!("host name `{host}` is none"))));
    let path = settings.path.as_ref().map(|p| NewPath::make(p, prefixed));
    Ok(Some(Box::new(Rewrite { host: host.transpose()?, path: path.transpose()? })))
}
