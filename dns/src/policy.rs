//! A TrafficPolicy as it is carried out: its chain parsed once, with what it leaves open filled in. Pure.

use std::net::{IpAddr, SocketAddr};

use atoll_api::kinds::AnswerKind;
use atoll_api::names::ServiceName;
use atoll_api::routing::Chain;
use atoll_api::topology::TrafficFacts;

/// How long federated answers may be kept where no policy says it.
pub(crate) const TTL: u32 = 5;

/// A policy.
#[derive(Debug)]
pub(crate) struct Policy {
    /// What people call it.
    pub(crate) name: String,
    pub(crate) chain: Chain,
    pub(crate) ttl: u32,
    /// What the addresses in the answer are, where it was written.
    pub(crate) answer: Option<AnswerKind>,
    /// Why it is not carried out as written.
    pub(crate) bad: Option<String>,
}

impl Policy {
    /// What holds where nothing was written: Active before Standby, then the nearest.
    pub(crate) fn nearest() -> Self {
        Self { name: "none: the nearest".to_owned(), chain: Chain::default(), ttl: TTL, answer: None, bad: None }
    }

    /// As written. A strategy that does not parse is replaced by the nearest: names go on.
    pub(crate) fn new(name: &ServiceName, facts: &TrafficFacts) -> Self {
        let parsed = Chain::parse(&facts.strategy, facts.all_down);
        let bad = parsed.as_ref().err().map(|e| format!("TrafficPolicy `{name}`: {e}"));
        let chain = parsed.or_else(|_| Chain::parse(&[], facts.all_down)).unwrap_or_default();
        Self { name: name.to_string(), chain, ttl: facts.ttl_seconds.unwrap_or(TTL), answer: facts.answer, bad }
    }
}

/// The address in `192.0.2.1`, `192.0.2.1:80` or `[2001:db8::1]:80`.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
}
