//! A TrafficPolicy as it is carried out: its chain parsed once, with what it leaves open filled in. Pure.

use std::net::{IpAddr, SocketAddr};

use atoll_api::kinds::{AnswerKind, FixedAddress};
use atoll_api::names::ServiceName;
use atoll_api::routing::{Chain, Key};
use atoll_api::topology::TrafficFacts;

use crate::answer::Reuse;

/// How long federated answers may be kept where no policy says it.
pub(crate) const TTL: u32 = 5;
/// Longest and shortest time to live that a policy gets: with 0 every question would be ours to answer again.
const TTL_BOUNDS: (u32, u32) = (1, 86_400);
/// Addresses in one answer where no policy says it: more do not make it better, only larger.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// Where it is to be every one.
const EVERY_MAX: usize = 256;

/// A policy.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Its object; `None`: nothing was written.
    pub(crate) at: Option<ServiceName>,
    pub(crate) chain: Chain,
    pub(crate) ttl: u32,
    /// Addresses in one answer, at most.
    pub(crate) limit: usize,
    /// What the addresses in the answer are, where it was written.
    pub(crate) answer: Option<AnswerKind>,
    /// For hosts: the service behind them.
    pub(crate) backend: Option<ServiceName>,
    /// For answers of Addresses.
    pub(crate) addresses: Vec<FixedAddress>,
    /// For when all are down and it says Fallback.
    pub(crate) fallback: Vec<IpAddr>,
    /// All clusters at once, not the first of an order.
    pub(crate) every: bool,
    /// Why it is not carried out as written.
    pub(crate) bad: Option<String>,
}

impl Policy {
    /// What holds where nothing was written: Active before Standby, then the nearest.
    pub(crate) fn nearest() -> Self {
        Self::of(None, &TrafficFacts::default(), Chain::default(), None)
    }

    /// What holds for headless services by the names of the multi-cluster DNS specification where nothing was written: every endpoint of every
    /// cluster (2.4.1), as far as one answer goes.
    pub(crate) fn every() -> Self {
        Self { every: true, limit: EVERY_MAX, ..Self::nearest() }
    }

    /// As written. A strategy that does not parse is replaced by the nearest: names go on.
    pub(crate) fn new(name: &ServiceName, facts: &TrafficFacts) -> Self {
        let parsed = Chain::parse(&facts.strategy, facts.all_down);
        let bad = parsed.as_ref().err().map(|e| format!("TrafficPolicy `{name}`: {e}"));
        let chain = parsed.or_else(|_| Chain::parse(&[], facts.all_down)).unwrap_or_default();
        Self::of(Some(name.clone()), facts, chain, bad)
    }

    fn of(at: Option<ServiceName>, facts: &TrafficFacts, chain: Chain, bad: Option<String>) -> Self {
        let namespace = at.as_ref().map(|n| n.namespace.clone()).unwrap_or_default();
        Self {
            chain,
            ttl: facts.ttl_seconds.unwrap_or(TTL).clamp(TTL_BOUNDS.0, TTL_BOUNDS.1),
            limit: facts.limit.map_or(ADDRESSES_MAX, |limit| usize::from(limit).max(1)),
            answer: facts.answer,
            backend: facts.backend.as_ref().map(|b| ServiceName::new(namespace, b.clone())),
            addresses: facts.addresses.clone(),
            fallback: facts.fallback.iter().filter_map(|a| a.parse().ok()).collect(),
            every: false,
            at,
            bad,
        }
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        let default = if self.every { "none: every endpoint" } else { "none: the nearest" };
        self.at.as_ref().map_or_else(|| default.to_owned(), ServiceName::to_string)
    }

    /// Who else may get an answer that it decided.
    pub(crate) fn reuse(&self) -> Reuse {
        match self.chain.key() {
            Key::Place => Reuse::Place,
            Key::Slots(slots) => Reuse::Slots(slots),
            Key::Client => Reuse::Client,
        }
    }
}

/// The address in `192.0.2.1`, `192.0.2.1:80` or `[2001:db8::1]:80`.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|a| a.ip()))
}
