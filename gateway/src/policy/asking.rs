//! What authorisation servers of HTTP are asked, and what their answers mean. Pure.
//!
//! Sources: Gateway API (HTTPExternalAuthFilter): "A HTTP 200 response … will be considered a success"; what forward-auth servers
//! (oauth2-proxy, Authelia) read: X-Forwarded-Method, -Proto, -Host, -Uri, -For.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};

use super::peer::Said;
use crate::filter::header_name;

/// What of a request is told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Headers; nothing: all.
    pub(crate) headers: Option<Vec<HeaderName>>,
}

/// What always is told (Gateway API: "the following headers … will always be sent").
const ALWAYS: &[HeaderName] = &[header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION];
/// What belongs to the client's own connection or body.
const NEVER: &[HeaderName] = &[
    header::CONNECTION,
    header::UPGRADE,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

impl Told {
    /// # Errors
    /// A name of a header is none.
    pub(crate) fn new(allowed: &[String], all: bool) -> Result<Self, String> {
        let headers = names("allowedHeaders", allowed)?;
        Ok(Self { headers: if headers.is_empty() && all { None } else { Some(headers) } })
    }

    /// The headers that are told of a request.
    pub(crate) fn of(&self, head: &HeaderMap) -> HeaderMap {
        let mut told = HeaderMap::new();
        let is_told = |name: &HeaderName| match &self.headers {
            None => !NEVER.contains(name),
            Some(listed) => !NEVER.contains(name) && (listed.contains(name) || ALWAYS.contains(name)),
        };
        for (name, value) in head.iter().filter(|(name, _)| is_told(name)) {
            told.append(name, value.clone());
        }
        told
    }
}

/// Names of headers as a field writes them.
///
/// # Errors
/// One of them is none.
pub(crate) fn names(field: &str, written: &[String]) -> Result<Vec<HeaderName>, String> {
    written.iter().map(|name| header_name(field, name)).collect()
}

/// The question of forward-auth: a GET of `path` that tells of the request.
pub(crate) fn forwarded(head: &Parts, path: &Uri, told: &Told, scheme: &'static str, own_host: bool) -> Request<Bytes> {
    let mut headers = told.of(&head.headers);
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-forwarded-method", head.method.as_str());
    put("x-original-method", head.method.as_str());
    put("x-forwarded-uri", target);
    put("x-forwarded-proto", scheme);
    let host = head.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    put("x-forwarded-host", host);
    put("x-original-url", &format!("{scheme}://{host}{target}"));
    for name in ["x-forwarded-for", "x-request-id"] {
        if let Some(value) = head.headers.get(name) {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    if own_host {
        headers.remove(header::HOST);
    }
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.clone();
    *request.headers_mut() = headers;
    request
}

/// The question of the Gateway API's ExternalAuth: the request itself, its path after `prefix`.
pub(crate) fn mirrored(head: &Parts, prefix: &str, told: &Told, body: Option<Bytes>) -> Request<Bytes> {
    let target = head.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = Request::new(body.unwrap_or_default());
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = told.of(&head.headers);
    *request.uri_mut() = format!("{}{target}", prefix.trim_end_matches('/')).parse().unwrap_or_default();
    request
}

/// Puts what a server that said yes wants the backend to know into the request.
pub(crate) fn admit(head: &mut Parts, said: &Said, listed: &[HeaderName]) {
    for name in listed {
        // What a client says in such a header itself is not believed, also where the server says nothing.
        head.headers.remove(name);
        for value in said.head.headers.get_all(name) {
            head.headers.append(name, value.clone());
        }
    }
}

/// The answer of a server that said no, as the client gets it.
pub(crate) fn refuse(said: Said, method: &Method) -> Response<Bytes> {
    let mut answer = Response::new(if method == Method::HEAD { Bytes::new() } else { said.body });
    *answer.status_mut() = said.head.status;
    for (name, value) in said.head.headers.iter().filter(|(name, _)| !NEVER.contains(name)) {
        answer.headers_mut().append(name, value.clone());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_what_they_may_know() {
        let request = Request::builder().method("POST").uri("/a?b=c").header("host", "a.test").header("cookie", "s=1");
        let request = request.header("authorization", "x").header("content-length", "3").header("te", "trailers");
        let head = request.body(()).unwrap().into_parts().0;
        let listed = |all: &[&str], none: bool| {
            Told::new(&all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), none).unwrap()
        };
        for (name, told, expected) in [
            ("all", listed(&[], true), "authorization cookie host"),
            ("none but those of the Gateway API", listed(&[], false), "authorization host"),
            ("a list", listed(&["Cookie"], true), "authorization cookie host"),
            ("never what belongs to the connection", listed(&["te", "content-length"], true), "authorization host"),
        ] {
            let mut found: Vec<String> = told.of(&head.headers).keys().map(|k| k.as_str().to_owned()).collect();
            found.sort_unstable();
            assert_eq!(found.join(" "), expected, "{name}");
        }
        assert!(Told::new(&["a b".to_owned()], true).is_err());
        let question = forwarded(&head, &Uri::from_static("/check"), &listed(&[], false), "https", false);
        let get = |name: &str| question.headers().get(name).map_or("", |v| v.to_str().unwrap());
        assert_eq!(
            (get("x-forwarded-method"), get("x-forwarded-uri"), get("x-original-url")),
            ("POST", "/a?b=c", "https://a.test/a?b=c")
        );
        assert_eq!((question.method(), question.uri().path()), (&Method::GET, "/check"));
        let question = mirrored(&head, "/auth/", &listed(&[], false), None);
        assert_eq!((question.method(), question.uri().to_string().as_str()), (&Method::POST, "/auth/a?b=c"));
    }
}
