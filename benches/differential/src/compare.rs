//! What differs between two replies to one question, each difference in words that the reviewed list uses. Pure.
//!
//! In: our reply and a peer's. Out: [`Differs`]: `answer more` is what we say and the peer does not, `answer less` the other way round. Of
//! truncated replies the sections don't count: RFC 2181 §9 has clients ignore them.

use std::collections::BTreeSet;

use crate::reply::{Reply, Section};

/// The words of everything that differs.
pub(crate) type Differs = BTreeSet<String>;

const SECTIONS: [&str; 3] = ["answer", "authority", "additional"];

/// Compares.
pub(crate) fn compare(ours: Option<&Reply>, theirs: Option<&Reply>) -> Differs {
    let mut differs = Differs::new();
    let (ours, theirs) = match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (None, None) => return differs,
        (ours, _) => {
            differs.insert(format!("silent {}", if ours.is_none() { "ours" } else { "theirs" }));
            return differs;
        }
    };
    let mut word = |differ: bool, text: String| {
        if differ {
            differs.insert(text);
        }
    };
    let more = |ours: bool| if ours { "more" } else { "less" };
    word(ours.rcode != theirs.rcode, format!("rcode {} {}", rcode(ours.rcode), rcode(theirs.rcode)));
    word(ours.opcode != theirs.opcode, "opcode".to_owned());
    for (mask, high, name) in [
        (0x80, true, "qr"),
        (4, true, "aa"),
        (2, true, "tc"),
        (1, true, "rd"),
        (0x80, false, "ra"),
        (0x40, false, "z"),
        (0x20, false, "ad"),
        (0x10, false, "cd"),
    ] {
        let of = |reply: &Reply| if high { reply.high } else { reply.low } & mask != 0;
        word(of(ours) != of(theirs), format!("{name} {}", more(of(ours))));
    }
    word(ours.questions != theirs.questions, "question".to_owned());
    match (&ours.opt, &theirs.opt) {
        (None, None) => {}
        (Some(a), Some(b)) => {
            word(a.version != b.version, "opt version".to_owned());
            word(a.size != b.size, format!("opt size {} {}", a.size, b.size));
            word(a.dnssec != b.dnssec, format!("opt do {}", more(a.dnssec)));
            a.options.difference(&b.options).for_each(|code| word(true, format!("option {code} more")));
            b.options.difference(&a.options).for_each(|code| word(true, format!("option {code} less")));
        }
        (a, _) => word(true, format!("opt {}", more(a.is_some()))),
    }
    if ours.is_truncated() && theirs.is_truncated() {
        return differs;
    }
    for (at, name) in SECTIONS.iter().enumerate() {
        let (a, b): (&Section, &Section) = (&ours.sections[at], &theirs.sections[at]);
        word(a.difference(b).next().is_some(), format!("{name} more"));
        word(b.difference(a).next().is_some(), format!("{name} less"));
    }
    differs
}

/// A code's word.
pub(crate) fn rcode(code: u16) -> String {
    let known = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
        "NOTZONE",
    ];
    match code {
        16 => "BADVERS".to_owned(),
        23 => "BADCOOKIE".to_owned(),
        code => known.get(usize::from(code)).map_or_else(|| format!("RCODE{code}"), |word| (*word).to_owned()),
    }
}
