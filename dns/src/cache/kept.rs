//! A forwarded answer, in our names, and its form in octets. Pure.
//!
//! In: sections of records. Out: a message's octets (names compressed, a third of what parsed records take), and back. Times to live are
//! settled once: one for each set (RFC 2181 §5.2), none above a day, those with the top bit set zero (RFC 2181 §8), a SOA's no longer than
//! its minimum (RFC 2308 §5).

use std::collections::HashMap;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// A positive answer is kept for so long at most.
pub(crate) const POSITIVE_TTL_MAX: u32 = 86_400;
/// A negative one: RFC 2308 §5 asks for a limit of one to three hours; members change by the minute.
pub(crate) const NEGATIVE_TTL_MAX: u32 = 300;

/// A forwarded answer, in our names.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    /// The name at the end of the chain does not exist.
    pub(crate) nxdomain: bool,
    /// The upstream has validated it (AD).
    pub(crate) secure: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
    /// The chain goes on at this name.
    pub(crate) next: Option<Name>,
    /// What is over already of the second that the times to live end with.
    pub(crate) spent_ms: u16,
}

impl Kept {
    /// With times to live as they may be given on.
    pub(crate) fn settled(mut self) -> Self {
        let mut least: HashMap<(Name, RecordType), u32> = HashMap::new();
        for record in self.answers.iter_mut().chain(&mut self.authorities).chain(&mut self.additionals) {
            // RFC 2181 §8: "treat TTL values received with the most significant bit set as if the entire value received was zero".
            record.ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl.min(POSITIVE_TTL_MAX) };
            if let RData::SOA(soa) = &record.data {
                record.ttl = record.ttl.min(soa.minimum).min(NEGATIVE_TTL_MAX);
            }
            let set = least.entry((record.name.clone(), record.record_type())).or_insert(record.ttl);
            *set = record.ttl.min(*set);
        }
        for record in self.answers.iter_mut().chain(&mut self.authorities).chain(&mut self.additionals) {
            // RFC 2181 §5.2: "treat … as though all TTLs in the RRSet had been set to the value of the lowest TTL".
            record.ttl = least.get(&(record.name.clone(), record.record_type())).copied().unwrap_or(record.ttl);
        }
        self
    }

    /// How long it may be kept.
    pub(crate) fn ttl(&self) -> u32 {
        let positive = self.answers.iter().map(|r| r.ttl).min();
        let negative = self.authorities.iter().find(|r| r.record_type() == RecordType::SOA).map(|r| r.ttl);
        // RFC 2308 §5: without a SOA a negative answer is not kept.
        positive.into_iter().chain(negative).min().unwrap_or(0)
    }

    /// With `age` taken off every time to live, or with `ttl` in its place.
    pub(crate) fn aged(&self, age: Duration, ttl: Option<u32>) -> Self {
        let mut aged = self.clone();
        aged.spent_ms = u16::try_from(age.subsec_millis()).unwrap_or_default();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for section in [&mut aged.answers, &mut aged.authorities, &mut aged.additionals] {
            for record in section {
                record.ttl = ttl.unwrap_or_else(|| record.ttl.saturating_sub(age));
            }
        }
        aged
    }

    /// As a message; where the chain goes on stands last, as one more CNAME. `None` for what no message holds.
    pub(crate) fn octets(&self) -> Option<Box<[u8]>> {
        let mut message = Message::response(u16::from(self.next.is_some()), OpCode::Query);
        message.metadata.response_code = if self.nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
        message.metadata.authentic_data = self.secure;
        message.answers.clone_from(&self.answers);
        message.authorities.clone_from(&self.authorities);
        message.additionals.clone_from(&self.additionals);
        if let Some(next) = &self.next {
            message.additionals.push(Record::from_rdata(Name::root(), 0, RData::CNAME(CNAME(next.clone()))));
        }
        message.to_vec().ok().map(Vec::into_boxed_slice)
    }

    /// Out of a message's octets.
    pub(crate) fn read(octets: &[u8]) -> Option<Self> {
        let message = Message::from_vec(octets).ok()?;
        let Message { metadata, answers, authorities, mut additionals, .. } = message;
        let last = if metadata.id == 1 { additionals.pop() } else { None };
        let next = match last.map(|r| r.data) {
            Some(RData::CNAME(next)) => Some(next.0),
            _ => None,
        };
        let nxdomain = metadata.response_code == ResponseCode::NXDomain;
        Some(Self { nxdomain, secure: metadata.authentic_data, answers, authorities, additionals, next, spent_ms: 0 })
    }
}
