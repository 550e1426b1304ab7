//! Queries in octets. Pure.
//!
//! In: what is asked and how. Out: a packet, whose id the sender puts in. Sources: RFC 1035 §4.1, RFC 6891 §6.1.

use crate::names::Name;

/// The OPT of a query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edns {
    pub(crate) version: u8,
    pub(crate) size: u16,
    pub(crate) dnssec: bool,
    /// Code and value of each option.
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

/// What is wrong with a packet on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    /// The question is left out.
    NoQuestion,
    /// The question stands twice.
    TwoQuestions,
    /// It ends in the question.
    Short,
    /// Octets stand behind the last record.
    Trailing,
    /// Two OPT records.
    TwoOpts,
    /// An OPT that is not of the root.
    NamedOpt,
    /// An option that is longer than the OPT.
    LongOption,
    /// A record in the answer section.
    Answered,
}

/// Every one.
pub(crate) const ODD: &[Odd] = &[
    Odd::NoQuestion,
    Odd::TwoQuestions,
    Odd::Short,
    Odd::Trailing,
    Odd::TwoOpts,
    Odd::NamedOpt,
    Odd::LongOption,
    Odd::Answered,
];

/// A question and how it is put.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question {
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    pub(crate) opcode: u8,
    /// The header's third and fourth octet, without opcode.
    pub(crate) flags: [u8; 2],
    pub(crate) edns: Option<Edns>,
    pub(crate) odd: Option<Odd>,
}

impl Question {
    /// The packet, with the id 0.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut asked = self.name.wire();
        asked.extend(self.kind.to_be_bytes());
        asked.extend(self.class.to_be_bytes());
        let questions: u16 = match self.odd {
            Some(Odd::NoQuestion) => 0,
            Some(Odd::TwoQuestions) => 2,
            _ => 1,
        };
        let opts: Vec<Vec<u8>> = match (&self.edns, self.odd) {
            (None, _) => Vec::new(),
            (Some(edns), Some(Odd::TwoOpts)) => vec![opt(edns, self.odd), opt(edns, self.odd)],
            (Some(edns), odd) => vec![opt(edns, odd)],
        };
        let answered = self.odd == Some(Odd::Answered);
        let mut octets = vec![0, 0, self.flags[0] | self.opcode << 3, self.flags[1]];
        for count in [questions, u16::from(answered), 0, opts.len() as u16] {
            octets.extend(count.to_be_bytes());
        }
        (0..questions).for_each(|_| octets.extend(&asked));
        if self.odd == Some(Odd::Short) {
            octets.truncate(octets.len() - 3);
            return octets;
        }
        if answered {
            octets.extend(self.name.wire());
            octets.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
        }
        opts.iter().for_each(|opt| octets.extend(opt));
        if self.odd == Some(Odd::Trailing) {
            octets.extend([1, 2, 3]);
        }
        octets
    }
}

fn opt(edns: &Edns, odd: Option<Odd>) -> Vec<u8> {
    let mut data = Vec::new();
    for (code, value) in &edns.options {
        data.extend(code.to_be_bytes());
        data.extend((value.len() as u16).to_be_bytes());
        data.extend(value);
    }
    if odd == Some(Odd::LongOption) {
        data.extend([0xfd, 0xe9, 0, 40, 1]);
    }
    let mut octets = if odd == Some(Odd::NamedOpt) { vec![1, b'x', 0] } else { vec![0] };
    octets.extend([0, 41]);
    octets.extend(edns.size.to_be_bytes());
    octets.extend([0, edns.version, u8::from(edns.dnssec) << 7, 0]);
    octets.extend((data.len() as u16).to_be_bytes());
    octets.extend(data);
    octets
}
