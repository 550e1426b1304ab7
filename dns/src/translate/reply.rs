//! A member's reply in our names: the chain from the question, link by link, and what is at its end. Pure.
//!
//! ```text
//!   at the question ── the set that was asked for? ─► it, done
//!                   ── below a DNAME? ─► the DNAME, a CNAME made of it (RFC 6672 §3.1), on at its target
//!                   ── a CNAME? ─► it, on at its target; out of the member: the rest is not for it to say
//!                   ── nothing ─► no such name, no data, or a referral, which is no answer
//! ```
//!
//! Everything that is not on this way is left out and counted. Never: a native name in the result, a panic.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::{Asked, Refused, Rename, Translated};
use crate::chain::{Link, follow};
use crate::names::{below, left_of, within};
use atoll_api::rdata::{dname, is_dnssec, map_names, may_hide_names, targets};

/// Records of one section that are looked at.
const RECORDS_MAX: usize = 4096;
/// RFC 2181 §8 allows 68 years; nobody's pods live so long.
pub(super) const TTL_MAX: u32 = 86_400;

/// Translates a reply.
///
/// # Errors
/// When nothing may be passed on of what was answered, since an answer that is empty for that reason would be a lie; when a name in it
/// would be too long; when it is no answer.
pub(crate) fn reply(rename: &Rename, asked: &Asked, message: &Message) -> Result<Translated, Refused> {
    let mut walk = Walk::new(rename, &message.answers);
    let (at, ended) = follow(asked.native.clone(), Refused::Chain, |at| walk.step(asked, at))?;
    let mut out = walk.finish(message);
    if !ended {
        negative(rename, message, &at, &mut out)?;
    }
    Ok(out)
}

/// The way along the chain.
struct Walk<'m> {
    rename: &'m Rename,
    /// What may be said at all.
    answers: Vec<&'m Record>,
    /// How many of them were on the way.
    used: usize,
    /// Names whose addresses may come along.
    wanted: Vec<&'m Name>,
    out: Translated,
}

impl<'m> Walk<'m> {
    fn new(rename: &'m Rename, answers: &'m [Record]) -> Self {
        let sayable = |r: &&Record| r.dns_class == DNSClass::IN && !is_dnssec(r.record_type());
        let answers = answers.iter().take(RECORDS_MAX).filter(sayable).collect();
        Self { rename, answers, used: 0, wanted: Vec::new(), out: Translated::default() }
    }

    fn step(&mut self, asked: &Asked, at: &Name) -> Result<Link, Refused> {
        let here: Vec<&'m Record> = self.answers.iter().copied().filter(|r| r.name == *at).collect();
        let set: Vec<&'m Record> = here.iter().copied().filter(|r| r.record_type() == asked.qtype).collect();
        let alias = here.iter().find_map(|r| Some((*r, cname(r)?)));
        if let Some((redirect, target)) = self.cover(at).filter(|_| set.is_empty() || asked.qtype == RecordType::CNAME)
        {
            // The CNAME that came with it is made anew: it must say what the DNAME says.
            self.used += 1 + usize::from(alias.is_some());
            return self.redirect(asked, at, redirect, &target);
        }
        if !set.is_empty() {
            self.used += set.len();
            self.wanted.extend(set.iter().filter_map(|r| targets(&r.data)));
            self.carry(set)?;
            self.out.next = None;
            return Ok(Link::End);
        }
        let Some((record, target)) = alias else { return Ok(Link::Nothing) };
        self.used += 1;
        self.carry(vec![record])?;
        self.on(target.clone())
    }

    /// The DNAME above `at`, and what it makes of it.
    fn cover(&self, at: &Name) -> Option<(&'m Record, Name)> {
        let above = |r: &&&Record| r.name != *at && within(at, &r.name) && self.rename.speaks_for(&r.name);
        self.answers.iter().filter(above).find_map(|r| Some((*r, dname(&r.data)?)))
    }

    /// RFC 6672 §3.1: the DNAME, and a CNAME made of it with its time to live.
    fn redirect(&mut self, asked: &Asked, at: &Name, record: &Record, target: &Name) -> Result<Link, Refused> {
        let to = substitute(at, &record.name, target).ok_or(Refused::TooLong)?;
        let (owner, end) = (self.rename.outward(at)?, self.rename.outward(&to)?);
        let ours = self.outward(record)?;
        // Where an alias lies in between, the renamed DNAME would say something else: then the CNAME alone stands.
        let faithful = dname(&ours.data).and_then(|to| substitute(&owner, &ours.name, &to));
        let ttl = ours.ttl;
        // A chain may come below one DNAME twice.
        if faithful.as_ref() == Some(&end) && !self.out.answers.contains(&ours) {
            self.out.answers.push(ours);
        }
        self.out.answers.push(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(end))));
        if asked.qtype == RecordType::CNAME {
            return Ok(Link::End);
        }
        self.on(to)
    }

    /// On at `target`; out of the member it is not for this one to say what is there.
    fn on(&mut self, target: Name) -> Result<Link, Refused> {
        self.out.next = Some(self.rename.outward(&target)?);
        Ok(if self.rename.speaks_for(&target) { Link::On(target) } else { Link::End })
    }

    /// Carries a record set over; what is refused is noted.
    fn carry(&mut self, set: Vec<&Record>) -> Result<(), Refused> {
        let before = self.out.answers.len();
        let mut last = None;
        for record in set {
            match self.outward(record) {
                Ok(record) => self.out.answers.push(record),
                Err(Refused::TooLong) => return Err(Refused::TooLong),
                Err(refused) => {
                    self.out.refused.push(refused);
                    last = Some(refused);
                }
            }
        }
        match last {
            Some(refused) if self.out.answers.len() == before => Err(refused),
            _ => Ok(()),
        }
    }

    fn outward(&self, record: &Record) -> Result<Record, Refused> {
        outward(self.rename, record)
    }

    /// Adds the addresses of targets, and counts what was not on the way.
    fn finish(mut self, message: &Message) -> Translated {
        for record in message.additionals.iter().take(RECORDS_MAX) {
            let address = matches!(record.data, RData::A(_) | RData::AAAA(_)) && record.dns_class == DNSClass::IN;
            if address && self.wanted.contains(&&record.name) && self.rename.speaks_for(&record.name) {
                match self.outward(record) {
                    Ok(record) => self.out.additionals.push(record),
                    Err(refused) => self.out.refused.push(refused),
                }
            }
        }
        let stray = self.answers.len().saturating_sub(self.used);
        self.out.refused.extend(std::iter::repeat_n(Refused::Bailiwick, stray));
        self.out
    }
}

/// What a reply without the data that was asked for says about the end of the chain, which is `at`.
fn negative(rename: &Rename, message: &Message, at: &Name, out: &mut Translated) -> Result<(), Refused> {
    let authorities = || message.authorities.iter().take(RECORDS_MAX).filter(|r| within(at, &r.name));
    let soa = authorities().find(|r| r.record_type() == RecordType::SOA);
    out.nxdomain = message.metadata.response_code == ResponseCode::NXDomain;
    // RFC 2308 §2.2: NS without SOA is a referral, whatever the question. One that is our chain's next question is asked as such.
    let refers = soa.is_none() && authorities().any(|r| r.record_type() == RecordType::NS);
    if refers && !out.nxdomain && out.next.is_none() {
        return Err(Refused::Referral);
    }
    out.soa = soa.filter(|r| rename.speaks_for(&r.name)).and_then(|r| outward(rename, r).ok());
    // Records were given and none of them may be passed on: that is no word on the name.
    let mut said = message.answers.iter().take(RECORDS_MAX);
    if !out.nxdomain && out.soa.is_none() && out.answers.is_empty() && said.any(|r| !is_dnssec(r.record_type())) {
        return Err(Refused::Bailiwick);
    }
    // Without a word about its end the chain goes on by a question of its own.
    if out.nxdomain || out.soa.is_some() {
        out.next = None;
    }
    Ok(())
}

fn outward(rename: &Rename, record: &Record) -> Result<Record, Refused> {
    if may_hide_names(record.record_type()) {
        return Err(Refused::Opaque(record.record_type()));
    }
    let owner = rename.outward(&record.name)?;
    let data = map_names(record.data.clone(), Refused::Opaque, |name| rename.outward(name))?;
    // RFC 2181 §8: a TTL with the top bit set is zero.
    let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl.min(TTL_MAX) };
    Ok(Record::from_rdata(owner, ttl, data))
}

/// `name` with the suffix `from` replaced by `to`; `None` when it does not lie below it, or when that is too long.
fn substitute(name: &Name, from: &Name, to: &Name) -> Option<Name> {
    below(&left_of(name, from)?, to)
}

fn cname(record: &Record) -> Option<&Name> {
    match &record.data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    }
}
