//! Logins by OpenID Connect: [`provider`] speaks to whoever knows people, [`session`] keeps in cookies who came, [`page`] is
//! what browsers are told.
//!
//! Sources: OpenID Connect Core 1.0 (§3.1 code flow), Discovery 1.0, RFC 6749, RFC 7636 (PKCE), RFC 6265 (cookies), RP-Initiated Logout 1.0.

pub(crate) mod page;
pub(crate) mod provider;
pub(crate) mod session;
