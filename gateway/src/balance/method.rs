//! How requests are divided among the endpoints of the chosen clusters, as a TrafficPolicy says it. Pure.
//!
//! In: `TrafficPolicy.balance`. Out: a method, and of a request the key that methods by hash go by.

use std::net::IpAddr;

use atoll_api::kinds::{Balance as Written, BalanceMethod};
use http::{HeaderMap, HeaderName};

use super::hash::hash;
use crate::http::cookie;

/// How, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Balance {
    pub(crate) method: BalanceMethod,
    key: Key,
}

/// What methods by hash go by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Key {
    #[default]
    Client,
    Header(HeaderName),
    Cookie(String),
}

impl Balance {
    /// As it is written.
    ///
    /// # Errors
    /// What no header can be called.
    pub(crate) fn parse(written: Option<&Written>) -> Result<Self, String> {
        let Some(written) = written else { return Ok(Self::default()) };
        let key = match written.hash_on.as_ref().map(|on| (&on.header, &on.cookie)) {
            Some((Some(header), _)) => {
                Key::Header(header.parse().map_err(|_| format!("balance: `{header}` is no name of a header"))?)
            }
            Some((None, Some(cookie))) => Key::Cookie(cookie.clone()),
            Some((None, None)) | None => Key::Client,
        };
        Ok(Self { method: written.method, key })
    }

    /// The key of a request; a client that sends none of what is asked for goes by its address.
    pub(crate) fn key(&self, headers: &HeaderMap, client: IpAddr) -> u64 {
        let said = match &self.key {
            Key::Client => None,
            Key::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            Key::Cookie(name) => cookie::find(headers, name).map(str::as_bytes),
        };
        said.map_or_else(|| Self::key_of_client(client), hash)
    }

    /// The key where there is nothing but an address.
    pub(crate) fn key_of_client(client: IpAddr) -> u64 {
        match client.to_canonical() {
            IpAddr::V4(a) => hash(&a.octets()),
            IpAddr::V6(a) => hash(&a.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use atoll_api::kinds::HashOn;

    use super::*;

    #[test]
    fn a_request_without_what_is_asked_for_goes_by_its_clients_address() {
        let on = |header: Option<&str>, cookie: Option<&str>| {
            let hash_on = HashOn { header: header.map(str::to_owned), cookie: cookie.map(str::to_owned) };
            Balance::parse(Some(&Written { method: BalanceMethod::RingHash, hash_on: Some(hash_on) }))
        };
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let headers = HeaderMap::from_iter([
            ("x-user".parse::<HeaderName>().unwrap(), "ada".parse::<http::HeaderValue>().unwrap()),
            (http::header::COOKIE, "a=1; cart=7".parse().unwrap()),
        ]);
        let by_client = Balance::key_of_client(client);
        for (header, cookie, want) in [
            (Some("x-user"), None, hash(b"ada")),
            (None, Some("cart"), hash(b"7")),
            (Some("x-nobody"), None, by_client),
            (None, Some("car"), by_client),
            (None, None, by_client),
        ] {
            assert_eq!(on(header, cookie).unwrap().key(&headers, client), want, "{header:?} {cookie:?}");
        }
        assert_eq!(by_client, Balance::key_of_client("::ffff:192.0.2.1".parse().unwrap()));
        assert!(on(Some("no name"), None).unwrap_err().contains("`no name`"));
    }
}
