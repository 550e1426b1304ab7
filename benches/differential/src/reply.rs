//! Replies, such that two that say the same are the same: names whole and in lower case, records as sets. Pure.
//!
//! In: octets. Out: a [`Reply`], or that it is none. Reads RFC 1035 §4 by itself; of signatures what was signed is kept, not with which
//! chance and when.

use std::collections::BTreeSet;

use crate::names::{NAME_MAX, show};

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<u8>,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex: String = self.data.iter().take(48).map(|o| format!("{o:02x}")).collect();
        write!(f, "{} {} TYPE{} {hex}", show(&self.name), self.ttl, self.kind)
    }
}

/// The OPT of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opt {
    pub(crate) version: u8,
    pub(crate) size: u16,
    pub(crate) dnssec: bool,
    /// Codes of its options.
    pub(crate) options: BTreeSet<u16>,
}

/// A set of records.
pub(crate) type Section = BTreeSet<Record>;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// With the upper bits of the OPT.
    pub(crate) rcode: u16,
    pub(crate) opcode: u8,
    /// QR, AA, TC, RD of the third octet.
    pub(crate) high: u8,
    /// RA, Z, AD, CD of the fourth.
    pub(crate) low: u8,
    /// The questions' octets, as they are.
    pub(crate) questions: Vec<u8>,
    pub(crate) sections: [Section; 3],
    pub(crate) opt: Option<Opt>,
    /// Octets of the message.
    pub(crate) length: usize,
}

impl Reply {
    pub(crate) fn is_authoritative(&self) -> bool {
        self.high & 4 != 0
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.high & 2 != 0
    }
}

/// Reads a reply.
pub(crate) fn read(octets: &[u8]) -> Option<Reply> {
    let head: &[u8; 12] = octets.first_chunk()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let mut at = 12;
    for _ in 0..count(4) {
        at = name(octets, at)?.1 + 4;
    }
    let questions = octets.get(12..at)?.to_vec();
    let mut reply = Reply {
        rcode: u16::from(head[3] & 0x0f),
        opcode: head[2] >> 3 & 0x0f,
        high: head[2] & 0x87,
        low: head[3] & 0xf0,
        questions,
        sections: Default::default(),
        opt: None,
        length: octets.len(),
    };
    for (section, records) in [count(6), count(8), count(10)].into_iter().enumerate() {
        for _ in 0..records {
            let (mut record, next) = record(octets, at)?;
            at = next;
            if record.kind == 46 {
                // Knot gives every signature of a name one time to live, so that it says nothing here.
                record.ttl = 0;
            }
            if record.kind == 41 && section == 2 {
                reply.rcode |= ((record.ttl >> 24) as u16) << 4;
                reply.opt = Some(opt(&record)?);
            } else {
                reply.sections[section].insert(record);
            }
        }
    }
    (at == octets.len()).then_some(reply)
}

/// The answers of a message, in their order, signatures and all.
pub(crate) fn records(octets: &[u8]) -> Option<Vec<Record>> {
    let head: &[u8; 12] = octets.first_chunk()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let mut at = 12;
    for _ in 0..count(4) {
        at = name(octets, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..count(6) {
        let (mut record, next) = record(octets, at)?;
        // Signatures hold no compressed name (RFC 4034 §3.1.7): as they are.
        if record.kind == 46 {
            record.data = octets.get(name(octets, at)?.1 + 10..next)?.to_vec();
        }
        records.push(record);
        at = next;
    }
    Some(records)
}

fn opt(record: &Record) -> Option<Opt> {
    let mut options = BTreeSet::new();
    let mut rest = record.data.as_slice();
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        options.insert(u16::from_be_bytes([head[0], head[1]]));
        rest = after.get(usize::from(u16::from_be_bytes([head[2], head[3]]))..)?;
    }
    let (version, dnssec) = ((record.ttl >> 16) as u8, record.ttl & 0x8000 != 0);
    Some(Opt { version, size: record.class, dnssec, options })
}

/// One record, and where the next begins.
fn record(octets: &[u8], at: usize) -> Option<(Record, usize)> {
    let (owner, at) = name(octets, at)?;
    let fixed: &[u8; 10] = octets.get(at..)?.first_chunk()?;
    let word = |n: usize| u16::from_be_bytes([fixed[n], fixed[n + 1]]);
    let (start, kind) = (at + 10, word(0));
    let end = start + usize::from(word(8));
    let data = data(octets, start, end, kind)?;
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    Some((Record { name: owner, kind, class: word(2), ttl, data }, end))
}

/// Data with its names whole (RFC 3597 §4: those of RFC 1035 and a few more may be compressed).
fn data(octets: &[u8], start: usize, end: usize, kind: u16) -> Option<Vec<u8>> {
    let raw = octets.get(start..end)?;
    // Octets before the names, how many names there are.
    let (before, names) = match kind {
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | 39 => (0, 1),
        6 | 14 | 17 => (0, 2),
        15 | 18 | 21 | 36 | 64 | 65 => (2, 1),
        33 => (6, 1),
        // NSEC.
        47 => (0, 1),
        // RRSIG: what was signed, by whom; neither when nor the signature.
        46 => {
            let (signer, _) = name(octets, start + 18)?;
            return Some([raw.get(..8)?, raw.get(16..18)?, &signer].concat());
        }
        35 => {
            let strings = (0..3).try_fold(4, |at, _| Some(at + 1 + usize::from(*raw.get(at)?)))?;
            (strings, 1)
        }
        _ => return Some(raw.to_vec()),
    };
    let mut whole = raw.get(..before)?.to_vec();
    let mut at = start + before;
    for _ in 0..names {
        let (name, next) = name(octets, at)?;
        whole.extend(name);
        at = next;
    }
    whole.extend(octets.get(at..end)?);
    Some(whole)
}

/// A name, whole and in lower case, and where it ends.
fn name(octets: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut at, mut end) = (Vec::new(), start, None);
    loop {
        match usize::from(*octets.get(at)?) {
            0 => {
                name.push(0);
                return (name.len() <= NAME_MAX).then_some((name, end.unwrap_or(at + 1)));
            }
            length @ 1..64 => {
                name.push(length as u8);
                name.extend(octets.get(at + 1..at + 1 + length)?.to_ascii_lowercase());
                at += 1 + length;
            }
            high @ 192.. => {
                end = end.or(Some(at + 2));
                let to = (high & 0x3f) << 8 | usize::from(*octets.get(at + 1)?);
                // A pointer leads back, so this ends.
                at = Some(to).filter(|to| *to < at)?;
            }
            _ => return None,
        }
        if name.len() > NAME_MAX {
            return None;
        }
    }
}
