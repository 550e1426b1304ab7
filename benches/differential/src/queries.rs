//! Questions by chance: names in, near, below and above what is there; types that are, may be and never are; flags, EDNS, packets that break
//! a rule. Pure.
//!
//! In: zones, a seed, a number. Out: the question of that number, always the same.

use crate::chance::Chance;
use crate::data::KINDS;
use crate::layout::LABELS;
use crate::names::Name;
use crate::packet::{Edns, ODD, Question};
use crate::zones::Zone;

/// Types that no zone here holds, and those that are no data.
const OTHERS: &[u16] = &[
    0, 3, 4, 10, 24, 25, 41, 43, 46, 47, 48, 50, 51, 59, 60, 63, 99, 100, 128, 249, 250, 251, 252, 253, 254, 255, 255,
    255, 65_280, 65_399, 65_535,
];
const SIZES: &[u16] = &[0, 511, 512, 600, 1000, 1231, 1232, 1232, 1232, 1400, 4096, 4096, 65_535];
const OPCODES: &[u8] = &[1, 2, 3, 6, 7, 9, 15];
/// One octet each of the header: AA, TC; RA, Z, AD, CD.
const BITS: &[[u8; 2]] = &[[4, 0], [2, 0], [0, 0x80], [0, 0x40], [0, 0x20], [0, 0x10], [0, 0x30]];

/// A question, and by which way it goes.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) number: u64,
    pub(crate) question: Question,
    /// By TCP.
    pub(crate) stream: bool,
}

impl Query {
    /// Whether a server may well say nothing to it: what breaks a rule, another opcode, TC.
    pub(crate) fn may_be_dropped(&self) -> bool {
        self.question.odd.is_some() || self.question.opcode != 0 || self.question.flags[0] & 2 != 0
    }
}

/// The question of a number.
pub(crate) fn query(zones: &[Zone], seed: u64, number: u64) -> Query {
    let mut chance = Chance::of(seed ^ 0x5ee_d0f0, number);
    let chance = &mut chance;
    let name = name(zones, chance);
    let mut question = Question { name, kind: kind(chance), class: 1, ..Question::default() };
    question.flags[0] = u8::from(chance.happens(50));
    if chance.happens(10) {
        let bits = chance.pick(BITS);
        question.flags = [question.flags[0] | bits[0], bits[1]];
    }
    if chance.happens(60) {
        question.edns = Some(edns(chance));
    }
    let stream = chance.happens(15);
    match chance.below(400) {
        0..2 => question.class = *chance.pick(&[3, 4, 254, 255, 2]),
        2..4 => question.opcode = *chance.pick(OPCODES),
        4..7 if !stream => question.odd = Some(*chance.pick(ODD)),
        _ => {}
    }
    let query = Query { number, question, stream };
    // On a connection it would hold up those behind it.
    let stream = stream && !query.may_be_dropped();
    Query { stream, ..query }
}

fn name(zones: &[Zone], chance: &mut Chance) -> Name {
    let zone = chance.pick(zones);
    let base = match chance.below(100) {
        0..8 => &zone.apex,
        8..20 if !zone.cuts.is_empty() => chance.pick(&zone.cuts),
        _ => chance.pick(&zone.names),
    };
    let name = match chance.below(100) {
        0..42 => base.clone(),
        42..60 => base.below(chance.pick(LABELS)),
        60..68 => base.below(chance.pick(LABELS)).below(chance.pick(LABELS)),
        68..76 => base.parent(),
        76..88 => base.parent().below(chance.pick(LABELS)),
        88..91 => base.below(b"*"),
        91..93 => base.below(format!("ns{}", chance.below(3)).as_bytes()),
        93..96 => zone.apex.below(chance.pick(LABELS)).below(chance.pick(LABELS)),
        96..97 => long(base),
        _ => chance.pick(&[Name::default(), Name::of("test"), Name::of("example"), Name::of("a.b.example")]).clone(),
    };
    let name = if name.fits() { name } else { base.clone() };
    if chance.happens(25) { spelled(&name, chance) } else { name }
}

/// As many labels in front as fit.
fn long(base: &Name) -> Name {
    let mut name = base.clone();
    loop {
        let longer = name.below(b"long-enough-to-meet-the-end");
        if !longer.fits() {
            return name;
        }
        name = longer;
    }
}

/// With letters in any case.
fn spelled(name: &Name, chance: &mut Chance) -> Name {
    let mut turn = |o: &u8| if chance.happens(50) { o.to_ascii_uppercase() } else { o.to_ascii_lowercase() };
    Name(name.0.iter().map(|label| label.iter().map(&mut turn).collect()).collect())
}

fn kind(chance: &mut Chance) -> u16 {
    match chance.below(100) {
        0..20 => 1,
        20..66 => chance.pick(KINDS).1,
        66..70 => 2,
        70..73 => 6,
        73..77 => 5,
        77..79 => 39,
        79..84 => 43,
        _ => *chance.pick(OTHERS),
    }
}

fn edns(chance: &mut Chance) -> Edns {
    let mut edns = Edns { size: *chance.pick(SIZES), dnssec: chance.happens(45), ..Edns::default() };
    match chance.below(100) {
        0..2 => edns.version = *chance.pick(&[1, 2, 255]),
        2..4 => edns.options.push((65_001, vec![7; chance.below(20)])),
        4..6 => edns.options.push((3, Vec::new())),
        6..8 => edns.options.push((10, vec![9; 8])),
        8..9 => edns.options.push((12, vec![0; chance.below(40)])),
        _ => {}
    }
    edns
}
