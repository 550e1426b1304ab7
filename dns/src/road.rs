//! The straight road to a member: what is the same for every plain question for its names, made ready once. Pure.
//!
//! ```text
//!   web.shop.svc │ prod-eu.atoll.internal   ── the suffix is swapped ──►   web.shop.svc │ cluster.local
//!   7.0.1.10.in-addr.arpa                   ── as it is ──►                7.0.1.10.in-addr.arpa
//! ```
//!
//! In: a member of a world. Out: a [`Road`], where one suffix stands for the other and nothing has to be thought about twice; else `None`:
//! such a member is asked on the slow path alone.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::answer::{Answer, Source};
use crate::forward::Party;
use crate::metrics::Metrics;
use crate::names::{lower_octets, octets};
use crate::table::Member;

/// The way to one member and back.
#[derive(Debug)]
pub(crate) struct Road {
    pub(crate) member: Arc<Member>,
    pub(crate) party: Arc<Party>,
    /// What the member calls its domain, as octets of the wire.
    pub(crate) native: Box<[u8]>,
    /// What we call it, in lower case.
    pub(crate) hub: Box<[u8]>,
    /// What its answers are made of, without records.
    pub(crate) made_of: Answer,
    /// Whose they are, for those who count.
    pub(crate) label: u16,
    /// Questions that were answered.
    pub(crate) answered: IntCounter,
}

impl Road {
    /// The road to `member`, where there is a straight one.
    pub(crate) fn new(member: &Arc<Member>, party: &Arc<Party>, metrics: &Metrics) -> Option<Arc<Self>> {
        let rename = &member.rename;
        if !rename.is_plain() || member.tcp_only || !member.kind.is_plain() || member.servers.is_empty() {
            return None;
        }
        let made_of = Answer { sources: vec![Source::Member(member.name.clone())], ..Answer::records(Vec::new()) };
        Some(Arc::new(Self {
            member: Arc::clone(member),
            party: Arc::clone(party),
            native: octets(rename.native()).into(),
            hub: lower_octets(rename.hub()).into(),
            label: metrics.label(&made_of, None),
            answered: metrics.forwards(member.name.as_str(), "ok"),
            made_of,
        }))
    }
}
