//! The key of a request as an Ingress spells it (`upstream-hash-by`). Pure.

use std::net::IpAddr;

use atoll_api::ingress::KeyPart;
use http::request::Parts;
use http::{HeaderMap, header};

use super::hash::hash;
use crate::http::{cookie, query};

/// What is looked at.
pub(crate) struct Looked<'a> {
    pub(crate) head: &'a Parts,
    pub(crate) host: &'a str,
    pub(crate) tls: bool,
    pub(crate) client: IpAddr,
}

/// The key that the parts give together; what is absent adds nothing, as in nginx.
pub(crate) fn key(parts: &[KeyPart], looked: &Looked<'_>) -> u64 {
    let mut text = Vec::new();
    for part in parts {
        add(part, looked, &mut text);
        // Two parts are not one.
        text.push(0);
    }
    hash(&text)
}

fn add(part: &KeyPart, looked: &Looked<'_>, text: &mut Vec<u8>) {
    let Looked { head, host, tls, client } = looked;
    let target = || head.uri.path_and_query().map_or("/", |target| target.as_str());
    match part {
        KeyPart::Text(word) => text.extend_from_slice(word.as_bytes()),
        KeyPart::Client => text.extend_from_slice(client.to_canonical().to_string().as_bytes()),
        KeyPart::Target => text.extend_from_slice(target().as_bytes()),
        KeyPart::Path => text.extend_from_slice(head.uri.path().as_bytes()),
        KeyPart::Query => text.extend_from_slice(head.uri.query().unwrap_or_default().as_bytes()),
        KeyPart::Host => text.extend_from_slice(host.as_bytes()),
        KeyPart::Method => text.extend_from_slice(head.method.as_str().as_bytes()),
        KeyPart::Scheme => text.extend_from_slice(if *tls { b"https" } else { b"http" }),
        KeyPart::Header(name) => text.extend_from_slice(named(&head.headers, name)),
        KeyPart::Cookie(name) => {
            text.extend_from_slice(cookie::find(&head.headers, name).unwrap_or_default().as_bytes())
        }
        KeyPart::Argument(name) => {
            let value = query::find(head.uri.query().unwrap_or_default(), name).unwrap_or_default();
            text.extend_from_slice(value.as_bytes());
        }
    }
}

fn named<'a>(headers: &'a HeaderMap, name: &str) -> &'a [u8] {
    let host = name.eq_ignore_ascii_case("host").then(|| headers.get(header::HOST)).flatten();
    host.or_else(|| headers.get(name)).map_or(&[], http::HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_give_the_same_key_and_others_another() {
        let key_of = |parts: &[KeyPart], uri: &str, cookie: &str| {
            let head = http::Request::builder().uri(uri).header("cookie", cookie).body(()).unwrap().into_parts().0;
            let client = "192.0.2.1".parse().unwrap();
            key(parts, &Looked { head: &head, host: "a.test", tls: false, client })
        };
        let (path, cart) = (&[KeyPart::Path][..], &[KeyPart::Cookie("cart".to_owned())][..]);
        let (item, client) = (&[KeyPart::Argument("item".to_owned())][..], &[KeyPart::Client][..]);
        for (name, parts, a, b, same) in [
            ("the path", path, ("/a?b=1", ""), ("/a?b=2", ""), true),
            ("another path", path, ("/a", ""), ("/b", ""), false),
            ("a cookie", cart, ("/a", "x=1; cart=7"), ("/b", "cart=7"), true),
            ("another cookie", cart, ("/a", "cart=8"), ("/a", "cart=7"), false),
            ("a parameter", item, ("/a?x=1&item=7", ""), ("/b?item=7", ""), true),
            ("another parameter", item, ("/a?item=7", ""), ("/a?item=8", ""), false),
            ("the client", client, ("/a", ""), ("/b", ""), true),
        ] {
            assert_eq!(key_of(parts, a.0, a.1) == key_of(parts, b.0, b.1), same, "{name}");
        }
    }
}
