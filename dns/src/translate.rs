//! Translation between a member's own names and their names below the apex: total, symmetric, strict. Pure.
//!
//! ```text
//!   web.shop.svc.prod-eu.atoll.internal ── to_native ──► web.shop.svc.cluster.local   (question)
//!   web.shop.svc.prod-eu.atoll.internal ◄── to_hub ───── web.shop.svc.cluster.local   (owners, record data)
//! ```
//!
//! In: a member's native domains and a reply of its DNS. Out: the reply in our names, with everything left out that the member may not
//! say: owners that are not on the chain from the question (bailiwick), DNSSEC records (their signatures are for other names), types
//! with names that can't be seen, names that would be too long, native names that an alias hides. Never: a native name in the
//! result, a panic.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::names::{absolute, below, left_of, text, within};
use atoll_api::rdata::{dname, is_dnssec, map_names, targets};

/// RFC 1034 §3.6.2 leaves the length of chains open; so many links are followed.
pub(crate) const CHAIN_MAX: usize = 8;
/// Records of one reply that are looked at.
const RECORDS_MAX: usize = 4096;
/// RFC 2181 §8 allows 68 years; nobody's pods live so long.
const TTL_MAX: u32 = 86_400;
/// Kubernetes' own domain, which never leaves, whoever names it.
const NEVER_OUT: &str = "cluster.local";

/// Why a record was left out.
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
        }
    }
}

/// A native domain and what it is called below the apex.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Domain {
    native: Name,
    hub: Name,
    alias: Option<String>,
}

/// The renaming of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rename {
    hub: Name,
    /// The longest native domain first.
    domains: Vec<Domain>,
    never_out: Option<Name>,
}

impl Rename {
    /// `hub` is the member's subtree, `native` its own domain, `aliases` further ones by their label.
    pub(crate) fn new(hub: Name, native: Name, aliases: &[(String, Name)]) -> Self {
        let mut domains = vec![Domain { native, hub: hub.clone(), alias: None }];
        for (label, native) in aliases {
            let Some(under) = below(&[label.as_bytes()], &hub) else { continue };
            domains.push(Domain { native: native.clone(), hub: under, alias: Some(label.to_ascii_lowercase()) });
        }
        domains.sort_by_key(|d| std::cmp::Reverse(d.native.iter().len()));
        Self { hub, domains, never_out: absolute(NEVER_OUT) }
    }

    /// The member's subtree.
    pub(crate) fn hub(&self) -> &Name {
        &self.hub
    }

    /// The member's own domain.
    pub(crate) fn native(&self) -> &Name {
        let main = self.domains.iter().find(|d| d.alias.is_none());
        &main.expect("`new` puts one in").native
    }

    /// What the member calls `name`; `None` when it does not lie in its subtree.
    ///
    /// # Errors
    /// When that would be too long.
    pub(crate) fn to_native(&self, name: &Name) -> Result<Option<Name>, Refused> {
        let Some(path) = left_of(name, &self.hub) else { return Ok(None) };
        let aliased = path.split_last().and_then(|(last, rest)| Some((self.alias(last)?, rest)));
        let (domain, path) = match aliased {
            Some((domain, rest)) => (&domain.native, rest),
            None => (self.native(), path.as_slice()),
        };
        below(path, domain).map(Some).ok_or(Refused::TooLong)
    }

    /// What `name` of the member is called below the apex; `None` when it lies in none of its domains.
    ///
    /// # Errors
    /// When that would be too long, or mean another name.
    pub(crate) fn to_hub(&self, name: &Name) -> Result<Option<Name>, Refused> {
        let found = self.domains.iter().find_map(|d| Some((d, left_of(name, &d.native)?)));
        let Some((domain, path)) = found else { return Ok(None) };
        if domain.alias.is_none() && path.last().is_some_and(|last| self.alias(last).is_some()) {
            return Err(Refused::Hidden);
        }
        below(&path, &domain.hub).map(Some).ok_or(Refused::TooLong)
    }

    /// `name` as it may leave: translated, or as it is where it is nobody's own.
    pub(crate) fn outward(&self, name: &Name) -> Result<Name, Refused> {
        if let Some(ours) = self.to_hub(name)? {
            return Ok(ours);
        }
        let leaks = self.never_out.as_ref().is_some_and(|never| within(name, never));
        if leaks && !within(name, &self.hub.base_name()) { Err(Refused::Leak) } else { Ok(name.clone()) }
    }

    fn alias(&self, label: &[u8]) -> Option<&Domain> {
        let label = text(label)?;
        self.domains.iter().find(|d| d.alias.as_deref().is_some_and(|a| a.eq_ignore_ascii_case(label)))
    }

    fn speaks_for(&self, name: &Name) -> bool {
        self.domains.iter().any(|d| within(name, &d.native))
    }
}

/// What a member was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// In its own words.
    pub(crate) native: Name,
    /// The type.
    pub(crate) qtype: RecordType,
    /// A name of a reverse zone: it is called the same everywhere.
    pub(crate) reverse: bool,
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

/// Translates a reply.
///
/// # Errors
/// When nothing may be passed on of what was answered: an answer that is empty for that reason would be a lie.
pub(crate) fn reply(rename: &Rename, asked: &Asked, message: &Message) -> Result<Translated, Refused> {
    let mut out = Translated::default();
    let mut at = asked.native.clone();
    let (mut used, mut ended) = (0, false);
    let mut wanted: Vec<Name> = Vec::new();
    let answers = &message.answers[..message.answers.len().min(RECORDS_MAX)];
    for link in 0.. {
        if link > CHAIN_MAX {
            return Err(Refused::Chain);
        }
        let here = || answers.iter().filter(|r| r.name == at);
        let set: Vec<&Record> = here().filter(|r| r.record_type() == asked.qtype).collect();
        if !set.is_empty() {
            used += set.len();
            wanted.extend(set.iter().filter_map(|r| targets(&r.data)).cloned());
            carry(rename, asked, set, &mut out)?;
            out.next = None;
            ended = true;
            break;
        }
        let cover = answers.iter().find(|r| dname(&r.data).is_some() && r.name != at && within(&at, &r.name));
        let cover = cover.filter(|r| rename.speaks_for(&r.name));
        let cname = here().find_map(|r| Some((r, cname(r)?)));
        if let Some(record) = cover {
            used += 1;
            carry(rename, asked, vec![record], &mut out)?;
        }
        let Some((record, target)) = cname else { break };
        used += 1;
        carry(rename, asked, vec![record], &mut out)?;
        out.next = Some(rename.outward(&target)?);
        if !rename.speaks_for(&target) || asked.reverse {
            // It is not for this member to say what is there.
            ended = true;
            break;
        }
        at = target;
    }
    let signed = answers.iter().filter(|r| is_dnssec(r.record_type())).count();
    out.refused.extend(std::iter::repeat_n(Refused::Bailiwick, answers.len().saturating_sub(used + signed)));
    if !ended {
        negative(rename, asked, message, &at, &mut out);
    }
    for record in message.additionals.iter().take(RECORDS_MAX) {
        let address = matches!(record.data, RData::A(_) | RData::AAAA(_));
        if address && wanted.contains(&record.name) && rename.speaks_for(&record.name) {
            out.additionals.extend(outward(rename, asked, record));
        }
    }
    Ok(out)
}

/// What a reply without the data that was asked for says about the end of the chain, which is `at`.
fn negative(rename: &Rename, asked: &Asked, message: &Message, at: &Name, out: &mut Translated) {
    let found = message
        .authorities
        .iter()
        .take(RECORDS_MAX)
        .find(|r| r.record_type() == RecordType::SOA && within(at, &r.name));
    let soa = found.filter(|r| rename.speaks_for(&r.name));
    out.nxdomain = message.metadata.response_code == ResponseCode::NXDomain;
    out.soa = soa.and_then(|r| outward(rename, asked, r).ok());
    // Without a word about its end the chain goes on by a question of its own.
    if out.nxdomain || out.soa.is_some() {
        out.next = None;
    }
}

/// Carries a record set over; what is refused is noted, and an error when nothing is left.
fn carry(rename: &Rename, asked: &Asked, set: Vec<&Record>, out: &mut Translated) -> Result<(), Refused> {
    let before = out.answers.len();
    let mut last = None;
    for record in set {
        match outward(rename, asked, record) {
            Ok(record) => out.answers.push(record),
            Err(refused) => {
                out.refused.push(refused);
                last = Some(refused);
            }
        }
    }
    match last {
        Some(refused) if out.answers.len() == before => Err(refused),
        _ => Ok(()),
    }
}

fn outward(rename: &Rename, asked: &Asked, record: &Record) -> Result<Record, Refused> {
    let owner = if asked.reverse { record.name.clone() } else { rename.outward(&record.name)? };
    let data = map_names(record.data.clone(), Refused::Opaque, |name| rename.outward(name))?;
    // RFC 2181 §8: a TTL with the top bit set is zero.
    let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl.min(TTL_MAX) };
    Ok(Record::from_rdata(owner, ttl, data))
}

fn cname(record: &Record) -> Option<Name> {
    match &record.data {
        RData::CNAME(target) => Some(target.0.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
