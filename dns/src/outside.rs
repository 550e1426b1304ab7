//! What may be taken from upstream resolvers: the chain from the question and what is at its end, nothing else. Pure.
//!
//! ```text
//!   reply ── scrub: owners on the chain (bailiwick), the SOA and proofs of what is not there ──► kept in the cache
//!   kept  ── guard: no addresses of inside networks (rebinding) ── where does the chain come home? ──► answer
//! ```
//!
//! In: a reply, or what was kept of one. Out: the same without what an upstream may not say. An upstream never speaks for another name than
//! the one that was asked (MaginotDNS), nor for a name of ours: a chain that reaches one is cut there and goes on at ours.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use crate::cache::Kept;
use crate::chain::{Link, follow};
use crate::names::within;
use atoll_api::rdata::dname;

/// Records of one section that are looked at.
const RECORDS_MAX: usize = 1024;
/// Nobody outside has these: RFC 1918, RFC 6598, loopback, link local, this host; RFC 4193 and the like.
const INSIDE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "255.255.255.255/32",
    "::/127",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
];

/// What of an upstream's reply to a question is kept, and how many records were dropped.
///
/// # Errors
/// When the chain is too long or goes round.
pub(crate) fn scrub(
    name: &Name,
    kind: RecordType,
    dnssec: bool,
    message: Message,
) -> Result<(Kept, usize), &'static str> {
    let all = message.answers.len() + message.authorities.len();
    let secure = message.metadata.authentic_data;
    let nxdomain = message.metadata.response_code == ResponseCode::NXDomain;
    let mut kept = Kept { nxdomain, secure, ..Kept::default() };
    let answers = &message.answers[..message.answers.len().min(RECORDS_MAX)];
    let (at, ended) = follow(name.clone(), "a chain of more than 8 links", |at| {
        let here = |wanted: &dyn Fn(&Record) -> bool| {
            let signed = |r: &Record| dnssec && r.record_type() == RecordType::RRSIG;
            let found: Vec<Record> =
                answers.iter().filter(|r| r.name == *at && (wanted(r) || signed(r))).cloned().collect();
            if found.iter().any(wanted) { found } else { Vec::new() }
        };
        let end = here(&|r| r.record_type() == kind || kind == RecordType::ANY);
        if !end.is_empty() {
            kept.answers.extend(end);
            return Ok(Link::End);
        }
        // RFC 6672 §3.1: a DNAME above comes with the CNAME that is made of it.
        let covers = |r: &&Record| r.name != *at && within(at, &r.name);
        let above = answers.iter().find(|r| dname(&r.data).is_some() && covers(r)).map(|r| &r.name);
        // A chain may come below the same one again: once is enough.
        let above = above.filter(|above| !kept.answers.iter().any(|r| r.name == **above && dname(&r.data).is_some()));
        kept.answers.extend(answers.iter().filter(|r| above == Some(&r.name)).cloned());
        let alias = here(&|r| r.record_type() == RecordType::CNAME);
        let target = alias.iter().find_map(target);
        kept.answers.extend(alias.into_iter().filter(|_| target.is_some()));
        Ok(target.map_or(Link::Nothing, Link::On))
    })?;
    let authorities = message.authorities.iter().take(RECORDS_MAX);
    let soa =
        authorities.clone().find(|r| !ended && r.record_type() == RecordType::SOA && within(&at, &r.name)).cloned();
    if dnssec {
        let proofs = |r: &&Record| matches!(r.record_type(), RecordType::NSEC | RecordType::NSEC3 | RecordType::RRSIG);
        let zone = soa.as_ref().map_or_else(Name::root, |soa| soa.name.clone());
        kept.authorities.extend(authorities.filter(proofs).filter(|r| within(&r.name, &zone)).cloned());
    }
    // Who gives data and says that there is no such name has given data.
    kept.nxdomain &= !ended;
    if !ended && !nxdomain && soa.is_none() && at != *name {
        kept.next = Some(at);
    }
    kept.authorities.extend(soa);
    let dropped = all.saturating_sub(kept.answers.len() + kept.authorities.len());
    Ok((kept, dropped))
}

fn target(record: &Record) -> Option<Name> {
    match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    }
}

/// Cuts the chain of `kept` where it reaches a name of `ours`, which is answered by us; whether there was one.
pub(crate) fn come_home(kept: &mut Kept, ours: impl Fn(&Name) -> bool) -> bool {
    let home = kept.answers.iter().enumerate().find_map(|(at, r)| Some((at, target(r).filter(&ours)?)));
    let Some((at, name)) = home else { return false };
    // What stands behind it is what the upstream says of our name.
    kept.answers.truncate(at + 1);
    kept.answers.retain(|r| r.record_type() != RecordType::RRSIG);
    (kept.authorities, kept.nxdomain, kept.secure, kept.next) = (Vec::new(), false, false, Some(name));
    true
}

/// Which addresses no name outside may have.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    on: bool,
    inside: Vec<IpNet>,
    names: Vec<Name>,
    ranges: Vec<IpNet>,
}

impl Guard {
    /// `names` (and what lies below them) may have any address; `ranges` may be anybody's.
    pub(crate) fn new(on: bool, names: Vec<Name>, ranges: Vec<IpNet>) -> Self {
        Self { on, inside: INSIDE.iter().filter_map(|net| net.parse().ok()).collect(), names, ranges }
    }

    /// Strips records of `name`'s answer that lead inside; `members` says which addresses are the members' own. How many there were.
    pub(crate) fn strip(&self, name: &Name, kept: &mut Kept, members: impl Fn(IpAddr) -> bool) -> usize {
        if !self.on || self.names.iter().any(|free| within(name, free)) {
            return 0;
        }
        let leads_inside = |ip: IpAddr| {
            let ip = ip.to_canonical();
            let held = self.inside.iter().any(|net| net.contains(&ip)) || members(ip);
            held && !self.ranges.iter().any(|net| net.contains(&ip))
        };
        let before = kept.answers.len();
        kept.answers.retain(|r| !addresses(&r.data).into_iter().any(leads_inside));
        let stripped = before - kept.answers.len();
        if stripped > 0 {
            // What is left is no longer what was validated.
            kept.secure = false;
        }
        stripped
    }
}

/// The addresses that a record holds: its own, or its hints (RFC 9460 §7.3).
fn addresses(data: &RData) -> Vec<IpAddr> {
    use hickory_proto::rr::rdata::svcb::SvcParamValue;
    let hints = |svcb: &hickory_proto::rr::rdata::SVCB| {
        let of = |value: &SvcParamValue| match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|a| IpAddr::from(a.0)).collect::<Vec<_>>(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|a| IpAddr::from(a.0)).collect(),
            _ => Vec::new(),
        };
        svcb.svc_params.iter().flat_map(|(_, value)| of(value)).collect()
    };
    match data {
        RData::A(a) => vec![a.0.into()],
        RData::AAAA(a) => vec![a.0.into()],
        RData::SVCB(svcb) => hints(svcb),
        RData::HTTPS(https) => hints(&https.0),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
