//! Translation between a member's own names and their names below the apex: total, symmetric, strict. Pure.
//!
//! ```text
//!   web.shop.svc.prod-eu.atoll.internal ── to_native ──► web.shop.svc.cluster.local   (question)
//!   web.shop.svc.prod-eu.atoll.internal ◄── to_hub ───── web.shop.svc.cluster.local   (owners, record data)
//! ```
//!
//! In: a member's [`Rename`] and a reply of its DNS. Out: the reply in our names, with everything left out that the member may not
//! say: owners that are not on the chain from the question (bailiwick), DNSSEC records (their signatures are for other names), types
//! with names that can't be seen, names that would be too long, native names that an alias hides. Never: a native name in the
//! result, a panic.

mod rename;

mod reply;

mod octets;

use hickory_proto::rr::{Name, Record, RecordType};

use crate::chain::CHAIN_MAX;
use crate::forward::Trail;

pub(crate) use octets::{Carried, Swap, carry};
pub(crate) use rename::Rename;
pub(crate) use reply::reply;

/// Why a record was left out, or a whole question or answer refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Refused {
    /// RFC 1035 §2.3.4.
    #[error("a name would be longer than 255 octets")]
    TooLong,
    /// Its name below the apex would mean another name.
    #[error("a name is hidden by an alias")]
    Hidden,
    /// It names a domain that never leaves a member.
    #[error("a name of another member's own domain")]
    Leak,
    /// It may hold names that we can't see.
    #[error("type {0} holds names that can't be translated")]
    Opaque(RecordType),
    /// The member does not speak for its owner.
    #[error("an owner outside the question's chain")]
    Bailiwick,
    /// The chain is too long, or goes round.
    #[error("a chain of more than {CHAIN_MAX} links")]
    Chain,
    /// It sent us elsewhere instead of answering.
    #[error("a referral instead of an answer")]
    Referral,
    /// It would be asked for a name that it asks us for.
    #[error("loop: its own DNS asks us for that name")]
    Loop,
}

impl Refused {
    /// The word for it in metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Hidden => "hidden",
            Self::Leak => "leak",
            Self::Opaque(_) => "opaque",
            Self::Bailiwick => "bailiwick",
            Self::Chain => "chain",
            Self::Referral => "referral",
            Self::Loop => "loop",
        }
    }
}

/// What a member was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// In its own words.
    pub(crate) native: Name,
    /// The type.
    pub(crate) qtype: RecordType,
    /// Who forwarded the question to us; it goes on with it.
    pub(crate) trail: Option<Trail>,
}

/// A reply in our names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Translated {
    /// The chain and what is at its end.
    pub(crate) answers: Vec<Record>,
    /// Addresses of targets in `answers`.
    pub(crate) additionals: Vec<Record>,
    /// Whether the name at the end of the chain does not exist.
    pub(crate) nxdomain: bool,
    /// The member's SOA of a negative answer.
    pub(crate) soa: Option<Record>,
    /// The chain goes on at this name.
    pub(crate) next: Option<Name>,
    /// What was left out.
    pub(crate) refused: Vec<Refused>,
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
