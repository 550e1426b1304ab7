//! Clients of HTTP/1.1 and HTTP/2 are told of HTTP/3 where it is served (RFC 7838, RFC 9114 §3.1.1).
//!
//! In: where a request came in, and which port it named. Out: the value of Alt-Svc. It is the port that the client knows, whatever port of ours
//! stands behind it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};

use crate::http::Client;
use crate::plane::Plane;
use crate::table::Slot;

/// At the port that https has where none is named (RFC 9110 §4.2.2).
const USUAL: HeaderValue = HeaderValue::from_static("h3=\":443\"; ma=86400");

/// Where HTTP/3 is served.
#[derive(Debug, Default)]
pub(crate) struct Heard(ArcSwap<BTreeSet<Slot>>);

impl Heard {
    /// From now on it is, or is not.
    pub(super) fn put(&self, slot: Slot, is_open: bool) {
        let mut slots = BTreeSet::clone(&self.0.load());
        if is_open {
            slots.insert(slot);
        } else {
            slots.remove(&slot);
        }
        self.0.store(Arc::new(slots));
    }

    fn has(&self, slot: Slot) -> bool {
        self.0.load().contains(&slot)
    }
}

/// What a client is told that asks for `authority`; nothing where there is nothing to tell.
pub(crate) fn alternative<'a>(
    plane: &Plane,
    client: &Client,
    authority: impl FnOnce() -> &'a [u8],
) -> Option<HeaderValue> {
    if !(client.tls && client.direct && plane.http3.has(client.slot)) {
        return None;
    }
    match port(authority()) {
        None | Some(443) => Some(USUAL),
        Some(port) => HeaderValue::from_str(&format!("h3=\":{port}\"; ma=86400")).ok(),
    }
}

/// The same for an answer, where it does not say so itself.
pub(crate) fn tell(headers: &mut HeaderMap, alternative: Option<HeaderValue>) {
    if let Some(alternative) = alternative {
        headers.entry(header::ALT_SVC).or_insert(alternative);
    }
}

/// The port that an authority names.
fn port(authority: &[u8]) -> Option<u16> {
    let at = authority.iter().rposition(|octet| *octet == b':')?;
    std::str::from_utf8(&authority[at + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_is_the_one_that_the_client_named() {
        for (authority, port) in [
            ("a.test", None),
            ("a.test:", None),
            ("a.test:8443", Some(8443)),
            ("[2001:db8::1]", None),
            ("[2001:db8::1]:444", Some(444)),
            ("a.test:70000", None),
        ] {
            assert_eq!(super::port(authority.as_bytes()), port, "{authority}");
        }
    }
}
