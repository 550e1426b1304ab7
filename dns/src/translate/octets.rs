//! A member's reply in our names, from octets to octets: the ordinary ones, which are nearly all. Pure.
//!
//! ```text
//!   addresses at the name that was asked for ─► the same at our name for it
//!   services there, and addresses of hosts   ─► the same with the hosts by our names
//!   names of an address                      ─► the same by our names
//!   nothing there, and the member's SOA      ─► the same with the SOA in our names
//! ```
//!
//! In: a question in our name, the two suffixes, a reply to it. Out: what [`super::reply()`] says of it, settled and encoded, or `None`:
//! what is not ordinary is for the full parser. One suffix stands for the other: see [`super::Rename::is_plain`]. Never: a native name in the
//! result, a panic.

use std::ops::Range;

use hickory_proto::rr::RecordType;

use super::reply::TTL_MAX;
use crate::cache::NEGATIVE_TTL_MAX;
use crate::wire::query::{HEADER, NAME_MAX, QUESTION_TAIL};

/// Records of a reply that is ordinary.
const RECORDS_MAX: usize = 64;
const SOA: u16 = 6;
const OPT: u16 = 41;
const PTR: u16 = 12;
const SRV: u16 = 33;
const A: u16 = 1;
const AAAA: u16 = 28;
/// Priority, weight and port, before the host (RFC 2782).
const SRV_HEAD: usize = 6;
/// Numbers at the end of a SOA's data (RFC 1035 §3.3.13).
const SOA_TAIL: usize = 20;
/// Type, class, time to live, length.
const FIXED: usize = 10;

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swap<'a> {
    /// Our name, in lower case.
    pub(crate) name: &'a [u8],
    /// How much of it stands left of the member's subtree; `None`: the name of an address, which is the same on both sides.
    pub(crate) left: Option<usize>,
    /// What the member calls its domain.
    pub(crate) native: &'a [u8],
    /// What we call it, in lower case.
    pub(crate) hub: &'a [u8],
    pub(crate) kind: u16,
}

impl Swap<'_> {
    /// Octets of the name that the member was asked for.
    fn asked(&self) -> usize {
        self.left.map_or(self.name.len(), |left| left + self.native.len())
    }
}

/// A reply in our names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Header, question, records, no OPT; authoritative.
    pub(crate) wire: Vec<u8>,
    /// Where its times to live are, as two octets each, the lower first.
    pub(crate) ttls: Vec<u8>,
    /// The least of them.
    pub(crate) ttl_s: u32,
    /// Where the additional records begin.
    pub(crate) thin: usize,
    pub(crate) nxdomain: bool,
}

/// The reply to what was asked; its question was compared already.
pub(crate) fn carry(swap: &Swap<'_>, reply: &[u8]) -> Option<Carried> {
    let head: &[u8; HEADER] = reply.first_chunk()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let (answers, authorities, also) = (count(6), count(8), count(10));
    let nxdomain = head[3] & 0x0f == 3;
    // One question, whole, a yes or a no.
    if count(4) != 1 || head[2] & 0x02 != 0 || !(head[3] & 0x0f == 0 || nxdomain) || answers > RECORDS_MAX {
        return None;
    }
    let asked = HEADER..HEADER + swap.asked() + QUESTION_TAIL;
    let mut at = asked.end;
    let mut out = Out::new(swap, nxdomain);
    match (answers, authorities) {
        (1.., 0) if !nxdomain && swap.kind == SRV => at = out.services(reply, at, answers)?,
        (1.., 0) if !nxdomain && swap.kind == PTR => at = out.pointers(reply, at, answers)?,
        (1.., 0) if !nxdomain => at = out.addresses(reply, at, answers)?,
        (0, 1) => at = out.soa(reply, at)?,
        _ => return None,
    }
    out.carried.thin = out.carried.wire.len();
    let at = out.also(reply, at, also)?;
    (at == reply.len()).then_some(out.carried)
}

/// What is written.
struct Out<'s> {
    swap: &'s Swap<'s>,
    carried: Carried,
    /// Hosts of services: as the member calls them, and where they stand.
    hosts: Vec<(Box<[u8]>, usize)>,
}

/// An address of a host.
struct Address {
    /// Which of the hosts.
    host: usize,
    kind: u16,
    ttl: u32,
    data: Range<usize>,
}

impl<'s> Out<'s> {
    fn new(swap: &'s Swap<'s>, nxdomain: bool) -> Self {
        let mut wire = Vec::with_capacity(256);
        // QR, AA.
        wire.extend_from_slice(&[0, 0, 0x84, if nxdomain { 3 } else { 0 }, 0, 1, 0, 0, 0, 0, 0, 0]);
        wire.extend_from_slice(swap.name);
        wire.extend_from_slice(&swap.kind.to_be_bytes());
        wire.extend_from_slice(&[0, 1]);
        let carried = Carried { wire, ttls: Vec::with_capacity(16), ttl_s: 0, thin: 0, nxdomain };
        Self { swap, carried, hosts: Vec::new() }
    }

    /// Addresses at the name that was asked for, all of the type; says where they end.
    fn addresses(&mut self, reply: &[u8], mut at: usize, count: usize) -> Option<usize> {
        let length = match RecordType::from(self.swap.kind) {
            RecordType::A => 4,
            RecordType::AAAA => 16,
            _ => return None,
        };
        let first = at;
        let least = self.least(reply, at, count, Some(length))?;
        at = first;
        for _ in 0..count {
            let (_, data) = self.at_question(reply, at, Some(length))?;
            self.record([0xc0, HEADER as u8], self.swap.kind, least, length);
            at = data.end;
            self.carried.wire.extend_from_slice(reply.get(data)?);
        }
        self.carried.wire[6..8].copy_from_slice(&u16::try_from(count).ok()?.to_be_bytes());
        self.carried.ttl_s = least;
        Some(at)
    }

    /// Services at the name that was asked for, all of them at the member's own hosts; says where they end.
    fn services(&mut self, reply: &[u8], mut at: usize, count: usize) -> Option<usize> {
        let least = self.least(reply, at, count, None)?;
        for _ in 0..count {
            let (host, place, end) = self.target(reply, at, (SRV_HEAD, least))?;
            self.hosts.push((host, place));
            at = end;
        }
        self.carried.wire[6..8].copy_from_slice(&u16::try_from(count).ok()?.to_be_bytes());
        self.carried.ttl_s = least;
        Some(at)
    }

    /// Names that an address has, all of them the member's own; says where they end.
    fn pointers(&mut self, reply: &[u8], mut at: usize, count: usize) -> Option<usize> {
        let least = self.least(reply, at, count, None)?;
        for _ in 0..count {
            at = self.target(reply, at, (0, least))?.2;
        }
        self.carried.wire[6..8].copy_from_slice(&u16::try_from(count).ok()?.to_be_bytes());
        self.carried.ttl_s = least;
        Some(at)
    }

    /// A record at the name that was asked for whose data is so many octets and a name of the member's: that name, where ours for it was
    /// written, where the record ends.
    fn target(&mut self, reply: &[u8], at: usize, (head, ttl): (usize, u32)) -> Option<(Box<[u8]>, usize, usize)> {
        let (_, data) = self.at_question(reply, at, None)?;
        let (head, mut host) = (data.start..data.start + head, [0; NAME_MAX]);
        let (host, end) = name(reply, head.end, &mut host)?;
        let left = self.left_of(host)?;
        if end != data.end {
            return None;
        }
        // RFC 2782: the host is written out.
        self.record([0xc0, HEADER as u8], self.swap.kind, ttl, head.len() + left.len() + self.swap.hub.len());
        let wire = &mut self.carried.wire;
        wire.extend_from_slice(reply.get(head)?);
        let place = wire.len();
        wire.extend_from_slice(left);
        wire.extend_from_slice(self.swap.hub);
        Some((host.into(), place, end))
    }

    /// The additional records: addresses of the hosts, and an OPT that says nothing; says where they end.
    fn also(&mut self, reply: &[u8], mut at: usize, count: usize) -> Option<usize> {
        if count > RECORDS_MAX {
            return None;
        }
        let (mut opt, mut addresses) = (false, Vec::new());
        for _ in 0..count {
            match plain_opt(reply, at).filter(|_| !opt) {
                Some(end) => (opt, at) = (true, end),
                None => {
                    let address = self.address(reply, at)?;
                    at = address.data.end;
                    addresses.push(address);
                }
            }
        }
        for address in &addresses {
            let alike = addresses.iter().filter(|a| (a.host, a.kind) == (address.host, address.kind));
            let ttl = alike.map(|a| a.ttl).min()?;
            // Else it would be kept for longer than it may be given.
            if ttl < self.carried.ttl_s {
                return None;
            }
            let owner = u16::try_from(self.hosts.get(address.host)?.1).ok().filter(|at| *at < 0x4000)?;
            self.record((0xc000 | owner).to_be_bytes(), address.kind, ttl, address.data.len());
            self.carried.wire.extend_from_slice(reply.get(address.data.clone())?);
        }
        self.carried.wire[10..12].copy_from_slice(&u16::try_from(addresses.len()).ok()?.to_be_bytes());
        Some(at)
    }

    /// An address of one of the hosts.
    fn address(&self, reply: &[u8], at: usize) -> Option<Address> {
        let mut owner = [0; NAME_MAX];
        let (owner, at) = name(reply, at, &mut owner)?;
        let host = self.hosts.iter().position(|(host, _)| host.eq_ignore_ascii_case(owner))?;
        let length = said(reply, at)?;
        let (kind, ttl, data) = fixed(reply, at, length)?;
        let ttl = settled(ttl);
        matches!((kind, length), (A, 4) | (AAAA, 16)).then_some(Address { host, kind, ttl, data: data..data + length })
    }

    /// The least time to live of so many records at the name that was asked for (RFC 2181 §5.2: one for the set).
    fn least(&self, reply: &[u8], mut at: usize, count: usize, length: Option<usize>) -> Option<u32> {
        let mut least = u32::MAX;
        for _ in 0..count {
            let (ttl, data) = self.at_question(reply, at, length)?;
            (least, at) = (least.min(settled(ttl)), data.end);
        }
        Some(least)
    }

    /// A record of the type, and of so much data where that is known, at the name that was asked for: its time to live, where its data is.
    fn at_question(&self, reply: &[u8], at: usize, length: Option<usize>) -> Option<(u32, Range<usize>)> {
        let asked = &reply[HEADER..HEADER + self.swap.asked()];
        let owner = match reply.get(at..at + 2)? {
            [0xc0, 12] => 2,
            _ => reply.get(at..at + asked.len()).filter(|owner| owner.eq_ignore_ascii_case(asked))?.len(),
        };
        let length = match length {
            Some(length) => length,
            None => said(reply, at + owner)?,
        };
        let (kind, ttl, data) = fixed(reply, at + owner, length)?;
        (kind == self.swap.kind).then_some((ttl, data..data + length))
    }

    /// The SOA of the zone that the name lies in; says where it ends. Of an address's name it may be anybody's: that is thought about.
    fn soa(&mut self, reply: &[u8], at: usize) -> Option<usize> {
        let subtree = self.subtree()?;
        let (mut owner, mut server, mut mailbox) = ([0; NAME_MAX], [0; NAME_MAX], [0; NAME_MAX]);
        let (owner, at) = name(reply, at, &mut owner)?;
        let length = said(reply, at)?;
        let (kind, ttl, data) = fixed(reply, at, length)?;
        let (server, end) = name(reply, data, &mut server)?;
        let (mailbox, end) = name(reply, end, &mut mailbox)?;
        let numbers = reply.get(end..data + length)?;
        let asked = &reply[HEADER..HEADER + self.swap.asked()];
        if kind != SOA || numbers.len() != SOA_TAIL || !is_below(asked, owner) {
            return None;
        }
        let minimum = u32::from_be_bytes(*numbers.last_chunk()?);
        // RFC 2308 §5.
        let ttl = settled(ttl).min(minimum).min(NEGATIVE_TTL_MAX);
        let [owner, server, mailbox] = [self.left_of(owner)?, self.left_of(server)?, self.left_of(mailbox)?];
        let written = [server, mailbox].iter().map(|left| left.len() + 2).sum::<usize>() + SOA_TAIL;
        self.carried.wire.extend_from_slice(owner);
        self.record(subtree, SOA, ttl, written);
        for left in [server, mailbox] {
            self.carried.wire.extend_from_slice(left);
            self.carried.wire.extend_from_slice(&subtree);
        }
        self.carried.wire.extend_from_slice(numbers);
        self.carried.wire[9] = 1;
        self.carried.ttl_s = ttl;
        Some(data + length)
    }

    /// The labels of a name of the member left of its domain; `None` for others' names, and for those that would be too long.
    fn left_of<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let left = name.len().checked_sub(self.swap.native.len())?;
        (is_below(name, self.swap.native) && left + self.swap.hub.len() <= NAME_MAX).then(|| &name[..left])
    }

    /// The subtree's name, where it stands in the question.
    fn subtree(&self) -> Option<[u8; 2]> {
        let at = u16::try_from(HEADER + self.swap.left?).ok()?;
        Some((0xc000 | at).to_be_bytes())
    }

    /// The head of a record; the labels before `owner` are written.
    fn record(&mut self, owner: [u8; 2], kind: u16, ttl: u32, length: usize) {
        let wire = &mut self.carried.wire;
        wire.extend_from_slice(&owner);
        wire.extend_from_slice(&kind.to_be_bytes());
        wire.extend_from_slice(&[0, 1]);
        // A message is no longer than what two octets count.
        self.carried.ttls.extend_from_slice(&(wire.len() as u16).to_le_bytes());
        wire.extend_from_slice(&ttl.to_be_bytes());
        wire.extend_from_slice(&(length as u16).to_be_bytes());
    }
}

/// RFC 2181 §8: a time to live with the top bit set is zero.
fn settled(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl.min(TTL_MAX) }
}

/// How much data a record has; `at` is behind its owner.
fn said(reply: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*reply.get(at + 8..)?.first_chunk()?)))
}

/// Type and time to live of a record of class IN with so much data, and where that is; `at` is behind its owner.
fn fixed(reply: &[u8], at: usize, length: usize) -> Option<(u16, u32, usize)> {
    let head: &[u8; FIXED] = reply.get(at..)?.first_chunk()?;
    let data = at + FIXED;
    let whole = head[2..4] == [0, 1] && said(reply, at) == Some(length) && data + length <= reply.len();
    let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    whole.then(|| (u16::from_be_bytes([head[0], head[1]]), ttl, data))
}

/// Where an OPT that says nothing ends: no upper bits of the code (RFC 6891 §6.1.3), version 0, no options.
fn plain_opt(reply: &[u8], at: usize) -> Option<usize> {
    let opt: &[u8; 1 + FIXED] = reply.get(at..)?.first_chunk()?;
    let [0, high, low, _, _, 0, 0, _, _, 0, 0] = *opt else { return None };
    (u16::from_be_bytes([high, low]) == OPT).then_some(at + opt.len())
}

/// The name at `at`, put together in `whole` (RFC 1035 §4.1.4: pointers lead to what stood before, and what is read there ends before), and
/// where it ends in the reply.
fn name<'n>(reply: &[u8], mut at: usize, whole: &'n mut [u8; NAME_MAX]) -> Option<(&'n [u8], usize)> {
    let (mut written, mut end, mut before, mut bound) = (0, None, at, reply.len());
    loop {
        let length = *reply.get(at).filter(|_| at < bound)?;
        match length {
            0 => {
                *whole.get_mut(written)? = 0;
                return Some((&whole[..=written], end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let label = reply.get(at..=at + usize::from(length))?;
                whole.get_mut(written..written + label.len())?.copy_from_slice(label);
                (written, at) = (written + label.len(), at + label.len());
            }
            0xc0.. => {
                let to = usize::from(u16::from_be_bytes([length & 0x3f, *reply.get(at + 1)?]));
                end = end.or(Some(at + 2));
                if to >= before || to < HEADER {
                    return None;
                }
                (at, before, bound) = (to, to, before);
            }
            _ => return None,
        }
    }
}

/// Whether `name` is `zone` or lies below it, by label and without regard to case.
fn is_below(name: &[u8], zone: &[u8]) -> bool {
    let Some(more) = name.len().checked_sub(zone.len()) else { return false };
    let mut at = 0;
    while at < more {
        at += 1 + usize::from(name[at]);
    }
    // Lengths are no letters.
    at == more && name[more..].eq_ignore_ascii_case(zone)
}
