//! Record data by chance, as zone files spell it. Pure.
//!
//! In: chance, names to point to. Out: the type's word and the data's text.

use crate::chance::Chance;
use crate::names::Name;

/// Types that plain names get, the most frequent ones first.
pub(crate) const KINDS: &[(&str, u16)] = &[
    ("A", 1),
    ("A", 1),
    ("AAAA", 28),
    ("TXT", 16),
    ("MX", 15),
    ("SRV", 33),
    ("CAA", 257),
    ("SSHFP", 44),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("NAPTR", 35),
    ("HINFO", 13),
    ("LOC", 29),
    ("URI", 256),
    ("CERT", 37),
    ("OPENPGPKEY", 61),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("CSYNC", 62),
    ("PTR", 12),
    ("TYPE65400", 65_400),
    ("TYPE300", 300),
];

/// Data of a type.
pub(crate) fn data(kind: &str, chance: &mut Chance, target: &Name) -> String {
    let mut number = |end: usize| chance.below(end);
    let to = target.text();
    match kind {
        "A" => format!("192.0.{}.{}", number(250), number(250)),
        "AAAA" => format!("2001:db8::{:x}:{:x}", 1 + number(0xfffe), 1 + number(0xfffe)),
        "MX" => format!("{} {to}", number(3)),
        "SRV" => format!("{} {} {} {to}", number(3), number(3), number(65_536)),
        "PTR" | "CNAME" | "DNAME" | "NS" => to,
        "CAA" => format!("{} issue \"ca{}.example; x=y\"", 128 * number(2), number(9)),
        "SSHFP" => format!("{} 1 {}", 1 + number(4), hex(chance, 20)),
        "TLSA" | "SMIMEA" => format!("{} {} 1 {}", number(4), number(2), hex(chance, 32)),
        "NAPTR" => {
            format!("{} {} \"s\" \"SIP+D2U\" \"{}\" {to}", number(9), number(9), ["", "!^.*$!sip:x@y!"][number(2)])
        }
        "HINFO" => format!("\"CPU {}\" \"an \\\"os\\\"\"", number(9)),
        "LOC" => format!("{} 6 35.000 N {} 40 56.000 E {}.00m 1m 10000m 10m", number(90), number(180), number(900)),
        "URI" => format!("{} {} \"https://h{}.example/a?b=c\"", number(9), number(9), number(9)),
        "CERT" => format!("{} {} 13 AAECAwQFBgcICQ==", 1 + number(3), number(65_536)),
        "OPENPGPKEY" => "AAECAwQFBgcICQoLDA0ODxAREhM=".to_owned(),
        "SVCB" | "HTTPS" if number(3) == 0 => format!("0 {to}"),
        "SVCB" | "HTTPS" => {
            format!("{} {to} alpn=h2,h3 port={} ipv4hint=192.0.2.{}", 1 + number(2), number(65_536), number(250))
        }
        "CSYNC" => format!("{} 3 A NS AAAA", number(1000)),
        "DS" => format!("{} 13 2 {}", number(65_536), hex(chance, 32)),
        "TXT" => text(chance),
        // RFC 3597 §5.
        _ => {
            let length = 1 + number(12);
            format!("\\# {length} {}", hex(chance, length))
        }
    }
}

fn hex(chance: &mut Chance, octets: usize) -> String {
    (0..octets).map(|_| format!("{:02x}", chance.octet())).collect()
}

fn text(chance: &mut Chance) -> String {
    const PIECES: &[&str] = &["hello", "a b", "\\\"", "\\\\", ";", "\\200", "\\000", "=", "(", ")", "$TTL", "@"];
    let strings = 1 + chance.below(3);
    let strings: Vec<String> = (0..strings)
        .map(|_| {
            let pieces = chance.below(5);
            let whole: String = (0..pieces).map(|_| *chance.pick(PIECES)).collect();
            format!("\"{whole}\"")
        })
        .collect();
    strings.join(" ")
}

/// A text of so many octets, different for each number.
pub(crate) fn long_text(number: usize, octets: usize) -> String {
    format!("\"{number:0octets$}\"")
}
