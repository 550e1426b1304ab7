//! Whom a limit counts: what a request is counted under.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use atoll_api::kinds::route_policy::filters::LimitKey;
use http::HeaderName;

use super::Asked;
use crate::filter::header_name;

/// By what a limit tells requests apart.
#[derive(Debug)]
pub(crate) struct Key {
    kind: LimitKey,
    header: Option<HeaderName>,
    /// The same in every replica, which count together.
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Key {
    /// # Errors
    /// The header is none, or is absent where it is needed.
    pub(crate) fn new(kind: Option<LimitKey>, header: Option<&String>) -> Result<Self, String> {
        let kind = kind.unwrap_or_default();
        let header = header.map(|name| header_name("header", name)).transpose()?;
        if (kind == LimitKey::Header) != header.is_some() {
            return Err("header: with key `header`, and with no other".to_owned());
        }
        Ok(Self { kind, header, hasher: BuildHasherDefault::default() })
    }

    /// Whether it needs to be known who asks.
    pub(crate) fn is_of_users(&self) -> bool {
        self.kind == LimitKey::User
    }

    /// A number of whom the request is counted under.
    pub(crate) fn of(&self, asked: &Asked<'_>) -> u64 {
        let value = self.header.as_ref().and_then(|name| asked.head.headers.get(name));
        match (self.kind, value, &asked.user) {
            (LimitKey::Route, ..) => self.hasher.hash_one((0_u8, &**asked.route)),
            (LimitKey::Header, Some(value), _) => self.hasher.hash_one((1_u8, value.as_bytes())),
            (LimitKey::User, _, Some(user)) => self.hasher.hash_one((2_u8, user)),
            _ => self.address(asked.client()),
        }
    }

    /// The same for a client whose address alone is known.
    pub(crate) fn address(&self, client: std::net::IpAddr) -> u64 {
        if self.kind == LimitKey::Route { 0 } else { self.hasher.hash_one((3_u8, client)) }
    }
}
