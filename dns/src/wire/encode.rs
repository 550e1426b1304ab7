//! From an answer to octets: encoded once, for everybody who asks the same; what only one client sees is put in later. Pure.
//!
//! In: an [`Answer`] and its question in lower case. Out: the octets of an entry, and for how long they hold. An answer that is ours
//! alone holds until the world changes, and so its times to live don't shrink; one that others gave holds for the shortest of them.

use hickory_proto::op::{Message, OpCode, Query as Asked};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::query::{HEADER, QUESTION_TAIL, name};
use super::render::{Body, Facts, turn_size};
use crate::answer::{Answer, Source, ede};
use crate::counters::Told;
use crate::edns::Edes;
use crate::names::{after_name, within};
use crate::translate::Carried;

/// What we say ourselves is looked at again after so long, though nothing has changed.
const STEADY_S: u32 = 3600;
/// RFC 9520 §3.2: a failure is kept for a moment, so that it is not tried again for every question.
const FAILURE_S: u32 = 1;
/// A refusal is the same until the world changes.
const REFUSAL_S: u32 = 5;

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// Lower case.
    pub(crate) name: &'a Name,
    pub(crate) kind: RecordType,
    pub(crate) class: DNSClass,
}

/// An answer as octets, not yet anybody's.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The message without OPT.
    pub(crate) wire: Vec<u8>,
    /// Where its times to live are, where they shrink.
    pub(crate) ttls: Vec<u8>,
    /// Extended errors.
    pub(crate) edes: Vec<u8>,
    pub(crate) facts: Facts,
    /// For how long it holds, in seconds; 0: not for the next one.
    pub(crate) life_s: u32,
}

impl Encoded {
    /// A reply of a member's that is octets already.
    pub(crate) fn carried(Carried { wire, ttls, ttl_s, thin, .. }: Carried) -> Self {
        let question =
            name(wire.get(HEADER..).unwrap_or_default()).map_or(0, |name| HEADER + name.len() + QUESTION_TAIL);
        let facts = Facts { thin: word(thin), question: word(question), aging: true, ..Facts::default() };
        Self { wire, ttls, edes: Vec::new(), facts, life_s: ttl_s }
    }

    /// Says whether we look up for this asker what is not ours.
    pub(crate) fn set_recursion(&mut self, recursion: bool) {
        if let Some(bits) = self.wire.get_mut(3) {
            *bits = *bits & 0x7f | u8::from(recursion) << 7;
        }
    }

    /// To render it.
    pub(crate) fn body(&self) -> Body<'_> {
        Body::new(&self.wire, &self.ttls, &self.edes, self.facts)
    }
}

/// Encodes `answer`; `recursion` says whether we look up for this asker what is not ours.
pub(crate) fn encode(question: &Question<'_>, answer: &Answer, recursion: bool) -> Encoded {
    let (additionals, glue) = glue_first(answer);
    let wire = whole(question, answer, additionals, recursion).unwrap_or_else(|| cut(question, answer, recursion));
    let layout = Layout::read(&wire, glue).unwrap_or_default();
    let aging = !ours(answer);
    let turn = if answer.rotates { layout.turn(&wire) } else { Turn::default() };
    let facts = Facts {
        thin: word(layout.thin),
        question: word(layout.question),
        turn: turn.at,
        turns: turn.count,
        wide: turn.wide,
        aging,
        glue: layout.glue,
        code: (u16::from(answer.rcode) >> 4) as u8,
        ede: Told::of(answer, 0).ede,
    };
    let offsets = layout.ttls.iter().filter(|_| aging);
    let ttls = offsets.flat_map(|offset| offset.to_le_bytes()).collect();
    Encoded { wire, ttls, edes: Edes::keep(&answer.edes), facts, life_s: life(answer, aging) }
}

fn word(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// The additional records, those first that a referral is none without, and how many these are. RFC 9471 §2.1: addresses of name servers
/// that lie in the zone that is delegated must be there, or TC says that they are not.
fn glue_first(answer: &Answer) -> (Vec<Record>, usize) {
    let cut = answer.authorities.iter().find(|r| r.record_type() == RecordType::NS).map(|r| &r.name);
    let is_glue = |r: &&Record| cut.is_some_and(|cut| within(&r.name, cut));
    let (mut first, rest): (Vec<&Record>, Vec<&Record>) = answer.additionals.iter().partition(is_glue);
    let glue = first.len();
    first.extend(rest);
    (first.into_iter().cloned().collect(), glue)
}

fn whole(question: &Question<'_>, answer: &Answer, additionals: Vec<Record>, recursion: bool) -> Option<Vec<u8>> {
    let mut message = head(question, answer, recursion);
    message.answers = answer.answers.clone();
    message.authorities = answer.authorities.clone();
    message.additionals = additionals;
    for record in message.answers.iter_mut().chain(&mut message.authorities) {
        // One spelling, so that it is a pointer to the question.
        if record.name == *question.name {
            record.name = question.name.clone();
        }
    }
    message.to_vec().ok().filter(|octets| octets.len() <= usize::from(u16::MAX))
}

/// More than a message holds: the client hears that there is more.
fn cut(question: &Question<'_>, answer: &Answer, recursion: bool) -> Vec<u8> {
    let mut message = head(question, answer, recursion);
    message.metadata.truncation = true;
    message.to_vec().unwrap_or_else(|_| vec![0; HEADER])
}

fn head(question: &Question<'_>, answer: &Answer, recursion: bool) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.metadata.response_code = answer.rcode;
    message.metadata.authoritative = answer.authoritative;
    message.metadata.authentic_data = answer.secure;
    message.metadata.recursion_available = recursion;
    let mut asked = Asked::query(question.name.clone(), question.kind);
    asked.set_query_class(question.class);
    message.queries = vec![asked];
    message
}

/// Whether nothing in it is what somebody else said.
fn ours(answer: &Answer) -> bool {
    let own = |s: &Source| matches!(s, Source::Zone(_) | Source::Service(_) | Source::Host(_));
    !answer.sources.is_empty() && answer.sources.iter().all(own)
}

fn life(answer: &Answer, aging: bool) -> u32 {
    let negative = answer.authorities.iter().find_map(|r| match &r.data {
        // RFC 2308 §5.
        RData::SOA(soa) => Some(r.ttl.min(soa.minimum)),
        _ => None,
    });
    if answer.edes.iter().any(|e| matches!(e.code, ede::STALE | ede::STALE_NXDOMAIN)) {
        return FAILURE_S;
    }
    let records = answer.answers.iter().chain(&answer.authorities).chain(&answer.additionals);
    let least = records.map(|r: &Record| r.ttl).chain(negative).min();
    match (least, aging) {
        (None, _) if answer.rcode == hickory_proto::op::ResponseCode::ServFail => FAILURE_S,
        (None, _) if answer.rcode == hickory_proto::op::ResponseCode::Refused => REFUSAL_S,
        (None, _) => 0,
        // Its SOA shows a number that goes on.
        (Some(least), false) if negative.is_some() => least,
        (Some(_), false) => STEADY_S,
        (Some(least), true) => least,
    }
}

/// Where things are in a message.
#[derive(Debug, Default)]
struct Layout {
    /// Octets up to the end of the question.
    question: usize,
    /// Octets up to the additional records that may be left out.
    thin: usize,
    /// Additional records that may not.
    glue: u8,
    /// Where times to live are.
    ttls: Vec<u16>,
    /// Start, end and type of each answer.
    answers: Vec<(usize, usize, u16)>,
}

impl Layout {
    fn read(wire: &[u8], glue: usize) -> Option<Self> {
        let head: &[u8; HEADER] = wire.first_chunk()?;
        let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
        let question = HEADER + name(&wire[HEADER..])?.len() + QUESTION_TAIL;
        let mut layout = Self { question, thin: wire.len(), ..Self::default() };
        // More glue than any datagram holds: all of it or nothing.
        let kept = u8::try_from(glue).ok();
        layout.glue = kept.unwrap_or(0);
        let (mut at, answers, fixed) = (question, count(6), count(6) + count(8));
        let thin = kept.map_or(usize::MAX, |glue| fixed + usize::from(glue));
        for record in 0..fixed + count(10) {
            if record == thin {
                layout.thin = at;
            }
            let start = at;
            at = after_name(wire, at)?;
            let head: &[u8; 10] = wire.get(at..)?.first_chunk()?;
            layout.ttls.push(u16::try_from(at + 4).ok()?);
            at += 10 + usize::from(u16::from_be_bytes([head[8], head[9]]));
            if record < answers {
                layout.answers.push((start, at, u16::from_be_bytes([head[0], head[1]])));
            }
        }
        (at == wire.len()).then_some(layout)
    }

    /// The addresses at the end of the answers, where they are one set.
    fn turn(&self, wire: &[u8]) -> Turn {
        let Some(&(_, end, kind)) = self.answers.last() else { return Turn::default() };
        let wide = match RecordType::from(kind) {
            RecordType::A => false,
            RecordType::AAAA => true,
            _ => return Turn::default(),
        };
        let size = turn_size(wide);
        let owner = |start: usize| wire.get(start..start + 2);
        let last = owner(end - size);
        let alike = |a: &&(usize, usize, u16)| a.2 == kind && a.1 - a.0 == size && owner(a.0) == last;
        let count = self.answers.iter().rev().take_while(alike).count();
        let count = count.min(usize::from(u8::MAX));
        if count < 2 {
            return Turn::default();
        }
        Turn { at: word(end - size * count), count: count as u8, wide }
    }
}

/// Records of one size that take turns in being the first.
#[derive(Debug, Default)]
struct Turn {
    at: u16,
    count: u8,
    wide: bool,
}
