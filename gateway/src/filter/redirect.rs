//! `RequestRedirect`: answers with another place; what is not named stays as in the request. A whole path that holds a question mark is the
//! whole target: then the request's query does not stay.

use atoll_api::kinds::gateway::HTTPRouteFilter;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::rewrite::NewPath;
use super::{Filter, Made, Matched, Resolve, absent, refused};

#[derive(Debug)]
struct Redirect {
    scheme: Option<String>,
    host: Option<String>,
    path: Option<NewPath>,
    port: Option<u16>,
    status: StatusCode,
    /// The whole target is empty: of the place its host is named alone.
    bare: bool,
}

impl Redirect {
    /// "If no port is specified, the redirect port MUST be derived": from the scheme if one is named, else from the listener. A
    /// scheme's own port is left out.
    fn authority(&self, matched: &Matched<'_>) -> (String, String) {
        let scheme = self.scheme.clone().unwrap_or_else(|| matched.scheme.to_owned());
        let own = if scheme == "https" { 443 } else { 80 };
        let derived = if self.scheme.is_some() { own } else { matched.port };
        let port = self.port.unwrap_or(derived);
        let host = self.host.as_deref().unwrap_or(matched.host);
        let authority = if port == own { host.to_owned() } else { format!("{host}:{port}") };
        (scheme, authority)
    }
}

impl Filter for Redirect {
    fn request(&self, head: &mut http::request::Parts, matched: &Matched<'_>) -> Option<Response<Bytes>> {
        let (scheme, authority) = self.authority(matched);
        let path = head.uri.path();
        let path = self.path.as_ref().map_or_else(|| path.to_owned(), |new| new.apply(path, matched.prefix));
        let query = head.uri.query().filter(|_| !path.contains('?')).map(|q| format!("?{q}")).unwrap_or_default();
        let path = if self.bare { "" } else { path.strip_suffix('?').unwrap_or(&path) };
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = self.status;
        match HeaderValue::from_str(&format!("{scheme}://{authority}{path}{query}")) {
            Ok(location) => drop(answer.headers_mut().insert(header::LOCATION, location)),
            Err(_) => *answer.status_mut() = StatusCode::BAD_REQUEST,
        }
        Some(answer)
    }
}

pub(super) fn make(written: &HTTPRouteFilter, prefixed: bool, _: &mut dyn Resolve) -> Made {
    let settings = written.request_redirect.as_ref().ok_or_else(|| absent("RequestRedirect"))?;
    if let Some(odd) = settings.scheme.as_deref().filter(|s| !matches!(*s, "http" | "https")) {
        return Err(refused(format!("scheme `{odd}` is not http or https")));
    }
    let code = settings.status_code.unwrap_or(302);
    let status = StatusCode::from_u16(code).ok().filter(|_| matches!(code, 301 | 302 | 303 | 307 | 308));
    Ok(Some(Box::new(Redirect {
        scheme: settings.scheme.clone(),
        host: settings.hostname.clone(),
        path: settings.path.as_ref().map(|p| NewPath::make(p, prefixed)).transpose()?,
        port: settings.port,
        bare: settings.path.as_ref().is_some_and(|path| path.replace_full_path.as_deref() == Some("?")),
        status: status.ok_or_else(|| refused(format!("status {code} is no redirect")))?,
    })))
}
