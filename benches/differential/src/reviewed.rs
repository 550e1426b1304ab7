//! The reviewed list: which differences are allowed, at which peers, when, and why. Pure.
//!
//! In: `reviewed.yaml`, a case. Out: the entries that explain every difference of the case, or the differences that nobody has reviewed.
//! Each difference needs an entry of its own; an entry counts only when all of its conditions hold.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Result;
use crate::compare::Differs;
use crate::names::{Name, read};
use crate::queries::Query;
use crate::reply::{Record, Reply};
use crate::zones::Zone;

const LIST: &str = include_str!("../reviewed.yaml");
const CNAME: u16 = 5;
const DNAME: u16 = 39;
const NS: u16 = 2;
const RRSIG: u16 = 46;

/// One question and what two servers said.
pub(crate) struct Case<'c> {
    pub(crate) query: &'c Query,
    pub(crate) zones: &'c [Zone],
    pub(crate) ours: Option<&'c Reply>,
    pub(crate) theirs: Option<&'c Reply>,
}

/// An allowed difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// What it is called in reports.
    pub(crate) name: String,
    /// At whom it is seen.
    pub(crate) peers: Vec<String>,
    /// All of these hold; `not` in front turns one round.
    #[serde(default)]
    pub(crate) when: Vec<String>,
    /// What may differ; `*` at the end stands for any rest.
    pub(crate) differs: Vec<String>,
    /// The sentence that says why.
    pub(crate) why: String,
}

/// The list.
pub(crate) struct Reviewed(Vec<Entry>);

impl Reviewed {
    /// The committed one.
    ///
    /// # Errors
    /// When an entry names a condition or a peer that there is not, or gives no cause.
    pub(crate) fn list() -> Result<Self> {
        let entries: Vec<Entry> = serde_saphyr::from_str(LIST)?;
        for entry in &entries {
            let known = |word: &str| CONDITIONS.iter().any(|(name, _)| *name == word.trim_start_matches("not "));
            if let Some(word) = entry.when.iter().find(|word| !known(word)) {
                return Err(format!("reviewed.yaml: `{}`: no condition `{word}`", entry.name).into());
            }
            let peer = |name: &String| crate::peers::PEERS.iter().any(|peer| peer.name == name);
            if !entry.peers.iter().all(peer) || entry.why.len() < 20 || entry.differs.is_empty() {
                return Err(format!("reviewed.yaml: `{}` is not whole", entry.name).into());
            }
        }
        Ok(Self(entries))
    }

    /// Takes out of `differs` what an entry explains, and counts these entries.
    pub(crate) fn explain(
        &self,
        peer: &str,
        case: &Case<'_>,
        differs: &mut Differs,
        counts: &mut BTreeMap<String, u64>,
    ) {
        for entry in &self.0 {
            let words: Vec<String> =
                differs.iter().filter(|d| entry.differs.iter().any(|w| fits(w, d))).cloned().collect();
            if words.is_empty() || !entry.peers.iter().any(|p| p == peer) || !entry.when.iter().all(|c| holds(c, case))
            {
                continue;
            }
            differs.retain(|word| !words.contains(word));
            *counts.entry(format!("{peer} {}", entry.name)).or_default() += 1;
        }
    }
}

fn fits(pattern: &str, word: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == word, |start| word.starts_with(start))
}

fn holds(condition: &str, case: &Case<'_>) -> bool {
    let (wanted, word) = condition.strip_prefix("not ").map_or((true, condition), |rest| (false, rest));
    CONDITIONS.iter().find(|(name, _)| *name == word).is_some_and(|(_, holds)| holds(case) == wanted)
}

type Condition = fn(&Case<'_>) -> bool;

/// What may be asked of a case.
const CONDITIONS: &[(&str, Condition)] = &[
    ("type any", |c| c.query.question.kind == 255),
    ("type meta", |c| matches!(c.query.question.kind, 0 | 41 | 128..=254)),
    ("type DS", |c| c.query.question.kind == 43),
    ("type NSEC", |c| matches!(c.query.question.kind, 47 | 50)),
    ("type RRSIG", |c| c.query.question.kind == 46),
    ("type CNAME", |c| c.query.question.kind == CNAME),
    ("class other", |c| c.query.question.class != 1),
    ("opcode other", |c| c.query.question.opcode != 0),
    ("odd", |c| c.query.question.odd.is_some()),
    ("dnssec", |c| c.query.question.edns.as_ref().is_some_and(|e| e.dnssec)),
    ("edns", |c| c.query.question.edns.is_some()),
    ("edns version", |c| c.query.question.edns.as_ref().is_some_and(|e| e.version > 0)),
    ("header bits", |c| c.query.question.flags[0] & 6 != 0 || c.query.question.flags[1] != 0),
    ("checking disabled", |c| c.query.question.flags[1] & 0x10 != 0),
    ("signed zone", |c| home(c).is_some_and(|zone| zone.signed)),
    ("into a signed zone", |c| home(c).is_some_and(|zone| zone.signed) || leads(c).any(|zone| zone.signed)),
    ("too long by a DNAME", |c| c.ours.is_some_and(|r| r.rcode == 6)),
    ("no zone", |c| home(c).is_none()),
    ("stream", |c| c.query.stream),
    ("ours truncated", |c| c.ours.is_some_and(Reply::is_truncated)),
    ("theirs truncated", |c| c.theirs.is_some_and(Reply::is_truncated)),
    ("alias", |c| c.ours.is_some_and(|r| r.sections[0].iter().any(|r| matches!(r.kind, CNAME | DNAME)))),
    ("their alias", |c| c.theirs.is_some_and(|r| r.sections[0].iter().any(|r| matches!(r.kind, CNAME | DNAME)))),
    ("answered", |c| c.ours.is_some_and(|r| !r.sections[0].is_empty())),
    ("referral", |c| c.ours.is_some_and(is_referral)),
    ("their referral", |c| c.theirs.is_some_and(is_referral)),
    ("alias leaves the zone", leaves),
    ("octets that PowerDNS refuses", |c| c.query.question.name.0.iter().flatten().any(|o| !plain(*o))),
    ("missing authority is NS or of DNSSEC", |c| missing(c, 1).all(|r| matches!(r.kind, NS | RRSIG | 47))),
    ("answers differ in signatures alone", |c| differing(c, 0).all(|r| r.kind == RRSIG)),
    ("authority differs in denials alone", |c| differing(c, 1).all(|r| matches!(r.kind, RRSIG | 47 | 50))),
    ("missing additional is no glue", |c| !missing(c, 2).any(|r| cut(c).is_some_and(|cut| read(&r.name).within(&cut)))),
    ("below a cut of another zone", |c| c.zones.iter().any(|z| zone_above(c, z))),
    ("theirs failed", |c| c.theirs.is_some_and(|r| r.rcode == 2)),
    ("cookie", |c| has_option(c, 10)),
    ("identity", |c| has_option(c, 3)),
    ("transfer", |c| matches!(c.query.question.kind, 251 | 252)),
];

fn has_option(case: &Case<'_>, code: u16) -> bool {
    case.query.question.edns.as_ref().is_some_and(|e| e.options.iter().any(|(c, _)| *c == code))
}

/// What PowerDNS 4.7 takes for an octet of a name.
fn plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'*' | b'.' | b'/' | b'@' | b' ' | b'\\' | b':')
}

/// What the peer has in a section and we have not.
fn missing<'c>(case: &'c Case<'_>, section: usize) -> impl Iterator<Item = &'c Record> {
    let ours = case.ours.map(|r| &r.sections[section]);
    let theirs = case.theirs.into_iter().flat_map(move |r| &r.sections[section]);
    theirs.filter(move |r| !ours.is_some_and(|ours| ours.contains(r)))
}

/// What one of both has in a section.
fn differing<'c>(case: &'c Case<'_>, section: usize) -> impl Iterator<Item = &'c Record> {
    let theirs = case.theirs.map(|r| &r.sections[section]);
    let ours = case.ours.into_iter().flat_map(move |r| &r.sections[section]);
    ours.filter(move |r| !theirs.is_some_and(|theirs| theirs.contains(r))).chain(missing(case, section))
}

/// The name that a referral of ours delegates.
fn cut(case: &Case<'_>) -> Option<Name> {
    let of = |reply: &Reply| reply.sections[1].iter().find(|r| r.kind == NS).map(|r| read(&r.name));
    case.ours.filter(|r| is_referral(r)).and_then(of)
}

/// Whether the question lies in a zone below `zone`.
fn zone_above(case: &Case<'_>, zone: &Zone) -> bool {
    home(case).is_some_and(|home| home.apex != zone.apex && home.apex.within(&zone.apex))
}

fn is_referral(reply: &Reply) -> bool {
    reply.rcode == 0 && reply.sections[1].iter().any(|r| r.kind == NS) && !reply.sections[1].iter().any(|r| r.kind == 6)
}

/// The zone that the question is for.
fn home<'c>(case: &Case<'c>) -> Option<&'c Zone> {
    zone_of(case.zones, &case.query.question.name)
}

fn zone_of<'z>(zones: &'z [Zone], name: &Name) -> Option<&'z Zone> {
    zones.iter().filter(|zone| name.within(&zone.apex)).max_by_key(|zone| zone.apex.0.len())
}

/// Where aliases in an answer lead.
fn targets<'c>(case: &'c Case<'_>) -> impl Iterator<Item = Name> + 'c {
    let all = [case.ours, case.theirs].into_iter().flatten();
    all.flat_map(|reply| &reply.sections[0]).filter(|r| r.kind == CNAME).map(|r| read(&r.data))
}

/// The zones of ours that they lead to.
fn leads<'c>(case: &'c Case<'_>) -> impl Iterator<Item = &'c Zone> {
    targets(case).filter_map(|name| zone_of(case.zones, &name))
}

/// Whether one leads out of the zone of the question.
fn leaves(case: &Case<'_>) -> bool {
    let apex = home(case).map(|zone| &zone.apex);
    targets(case).any(|name| zone_of(case.zones, &name).map(|zone| &zone.apex) != apex)
}
