//! A query as the fast path reads it: nothing allocated, nothing copied but the folded name. Pure.
//!
//! In: a packet. Out: a [`Query`], or `None` for whatever is not plain: the slow path reads that with a full parser and knows what to
//! say. Plain is: opcode QUERY without other header bits than RD, AD and CD, one question of class IN and a data type with a whole name,
//! no records but one OPT of version 0, nothing after it. Never panics.
//! Sources: RFC 1035 §4.1, RFC 6891 §6.1, RFC 7871 §6 (ECS).

use crate::edns::Opt;
use crate::geo::ecs::Subnet;

/// RFC 1035 §2.3.4, with the length octets and the root's.
pub(crate) const NAME_MAX: usize = 255;
const LABEL_MAX: u8 = 63;
/// Before the question.
pub(crate) const HEADER: usize = 12;
/// Type and class.
pub(crate) const QUESTION_TAIL: usize = 4;
const OPT: u16 = 41;

/// Bits of a query that may change the answer.
pub(crate) mod bit {
    /// Recursion desired.
    pub(crate) const RD: u8 = 1;
    /// Checking disabled.
    pub(crate) const CD: u8 = 2;
    /// Authentic data, as asked.
    pub(crate) const AD: u8 = 4;
    /// DNSSEC OK.
    pub(crate) const DO: u8 = 8;
}

/// Where a name is folded to.
pub(crate) type Folded = [u8; NAME_MAX];

/// A plain query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Query<'p> {
    pub(crate) id: [u8; 2],
    /// Of [`bit`].
    pub(crate) bits: u8,
    /// The name as octets of the wire, as the client spells it.
    pub(crate) spelled: &'p [u8],
    /// The same in lower case.
    pub(crate) name: &'p [u8],
    pub(crate) kind: u16,
    pub(crate) opt: Option<Opt<'p>>,
}

impl<'p> Query<'p> {
    /// Reads `packet`; the folded name is put into `folded`.
    pub(crate) fn read(packet: &'p [u8], folded: &'p mut Folded) -> Option<Self> {
        let head: &[u8; HEADER] = packet.first_chunk()?;
        let plain = head[2] & 0xfe == 0 && head[3] & 0xcf == 0 && head[4..10] == [0, 1, 0, 0, 0, 0] && head[10] == 0;
        if !plain || head[11] > 1 {
            return None;
        }
        let spelled = name(&packet[HEADER..])?;
        let rest = &packet[HEADER + spelled.len()..];
        let (tail, rest) = rest.split_first_chunk::<QUESTION_TAIL>()?;
        let kind = u16::from_be_bytes([tail[0], tail[1]]);
        if tail[2..] != [0, 1] || !is_data(kind) {
            return None;
        }
        let opt = match head[11] {
            0 if rest.is_empty() => None,
            1 => Some(opt(rest)?),
            _ => return None,
        };
        let name = &mut folded[..spelled.len()];
        name.copy_from_slice(spelled);
        // Length octets are no letters.
        name.make_ascii_lowercase();
        let mut bits = head[2] & bit::RD;
        bits |= u8::from(head[3] & 0x10 != 0) * bit::CD;
        bits |= u8::from(head[3] & 0x20 != 0) * bit::AD;
        bits |= u8::from(opt.is_some_and(|o| o.dnssec)) * bit::DO;
        Some(Self { id: [head[0], head[1]], bits, spelled, name, kind, opt })
    }
}

/// The OPT that `record`, which is all that is left, must be.
fn opt(record: &[u8]) -> Option<Opt<'_>> {
    let (head, data) = record.split_first_chunk::<11>()?;
    let [0, kind_high, kind_low, size_high, size_low, 0, 0, high, low, length_high, length_low] = *head else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if u16::from_be_bytes([kind_high, kind_low]) != OPT || data.len() != length {
        return None;
    }
    let flags = u32::from(u16::from_be_bytes([high, low]));
    let opt = Opt::read(u16::from_be_bytes([size_high, size_low]), flags, data).ok()?;
    opt.subnet.is_none_or(|subnet| Subnet::read(subnet).is_ok()).then_some(opt)
}

/// The whole name that `octets` begin with, without pointers.
pub(crate) fn name(octets: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let length = *octets.get(at)?;
        at += 1;
        if length == 0 {
            return (at <= NAME_MAX).then(|| &octets[..at]);
        }
        if length > LABEL_MAX || at >= NAME_MAX {
            return None;
        }
        at += usize::from(length);
    }
}

/// Types that records have (RFC 6895 §3.1), and that no answer is made up for.
fn is_data(kind: u16) -> bool {
    kind != 0 && kind != OPT && !(128..=255).contains(&kind)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, Query as Asked};
    use hickory_proto::rr::rdata::opt::EdnsOption;
    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn packet(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 0x0102;
        message.metadata.recursion_desired = true;
        message.add_query(Asked::query(Name::from_ascii("Web.Example.").unwrap(), RecordType::A));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn with_option(code: u16, value: &[u8]) -> Vec<u8> {
        packet(|m| {
            let mut edns = Edns::new();
            edns.set_max_payload(4096);
            edns.options_mut().insert(EdnsOption::Unknown(code, value.to_vec()));
            m.set_edns(edns);
        })
    }

    #[test]
    fn a_plain_query_is_read_as_it_is() {
        let mut folded = [0; NAME_MAX];
        let plain = packet(|_| {});
        let query = Query::read(&plain, &mut folded).unwrap();
        assert_eq!((query.id, query.bits, query.kind, query.opt), ([1, 2], bit::RD, 1, None));
        assert_eq!((query.spelled, query.name), (&b"\x03Web\x07Example\x00"[..], &b"\x03web\x07example\x00"[..]));
        let all = packet(|m| {
            m.metadata.checking_disabled = true;
            m.metadata.authentic_data = true;
            let mut edns = Edns::new();
            edns.set_dnssec_ok(true);
            edns.set_max_payload(1400);
            m.set_edns(edns);
        });
        let query = Query::read(&all, &mut folded).unwrap();
        assert_eq!(query.bits, bit::RD | bit::CD | bit::AD | bit::DO);
        assert_eq!(query.opt.map(|o| (o.payload, o.dnssec)), Some((1400, true)));
        let subnet = with_option(8, &[0, 1, 20, 0, 10, 1, 0x10]);
        let query = Query::read(&subnet, &mut folded).unwrap();
        assert_eq!(query.opt.and_then(|o| o.subnet), Some(&[0, 1, 20, 0, 10, 1, 0x10][..]));
        let cookie = with_option(10, &[7; 8]);
        assert_eq!(Query::read(&cookie, &mut folded).unwrap().opt.and_then(|o| o.cookie), Some(&[7; 8][..]));
        let unknown = with_option(65_001, &[1]);
        assert!(Query::read(&unknown, &mut folded).is_some(), "RFC 6891 §6.1.2: unknown options are ignored");
    }

    #[test]
    fn what_is_not_plain_goes_the_slow_way() {
        let flip = |at: usize, with: u8| {
            let mut octets = packet(|_| {});
            octets[at] ^= with;
            octets
        };
        let cut = |by: usize| {
            let octets = packet(|_| {});
            octets[..octets.len() - by].to_vec()
        };
        for (case, octets) in [
            ("a reply", flip(2, 0x80)),
            ("another opcode", flip(2, 0x28)),
            ("cut off", flip(2, 0x02)),
            ("a bit that is reserved", flip(3, 0x40)),
            ("no question", flip(5, 1)),
            ("an answer", flip(7, 1)),
            ("an additional record that is not there", flip(11, 1)),
            ("a pointer", flip(12, 0xc0)),
            ("class CH", flip(28, 2)),
            ("type ANY", flip(26, 0xfe)),
            ("type 0", flip(26, 1)),
            ("half a question", cut(1)),
            ("octets behind", [packet(|_| {}), vec![0]].concat()),
            ("a subnet with bits behind its prefix", with_option(8, &[0, 1, 20, 0, 10, 1, 0x11])),
            ("a subnet too long", with_option(8, &[0, 1, 33, 0, 10, 1, 1, 1, 1])),
            (
                "EDNS version 1",
                packet(|m| {
                    let mut edns = Edns::new();
                    edns.set_version(1);
                    m.set_edns(edns);
                }),
            ),
        ] {
            assert_eq!(Query::read(&octets, &mut [0; NAME_MAX]), None, "{case}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_breaks_it(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
            Query::read(&octets, &mut [0; NAME_MAX]);
        }

        #[test]
        fn what_it_reads_the_full_parser_reads_alike(at in 0_usize..60, with: u8, code in 0_u16..20, value in proptest::collection::vec(any::<u8>(), 0..24)) {
            let mut octets = with_option(code, &value);
            let length = octets.len();
            octets[at % length] ^= with;
            let mut folded = [0; NAME_MAX];
            if let Some(query) = Query::read(&octets, &mut folded) {
                let full = Message::from_vec(&octets).unwrap();
                prop_assert_eq!(u16::from(full.queries[0].query_type), query.kind);
                prop_assert_eq!(full.metadata.id.to_be_bytes(), query.id);
                prop_assert_eq!(full.metadata.recursion_desired, query.bits & bit::RD != 0);
                let name = full.queries[0].name.to_lowercase();
                let labels: Vec<&[u8]> = name.iter().collect();
                let mut at = 0;
                for label in labels {
                    prop_assert_eq!(&query.name[at + 1..at + 1 + label.len()], label);
                    at += 1 + label.len();
                }
                prop_assert_eq!(full.edns.map(|e| (e.max_payload(), e.flags().dnssec_ok)), query.opt.map(|o| (o.payload.max(512), o.dnssec)));
            }
        }
    }
}
