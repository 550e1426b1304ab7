//! Character strings as text and back (RFC 1035 §5.1), and the types that are made of them: TXT, HINFO, NAPTR. Pure and total.
//!
//! In: words, quoted or not, in which `\DDD` is an octet by its decimal number and `\X` is X. Out: octets, at most 255 a string. The parser
//! that we use for other types reads DDD as octal and writes what it has read as UTF-8.

use hickory_proto::rr::rdata::{HINFO, NAPTR, TXT};
use hickory_proto::rr::{RData, RecordType};

use super::names;

const STRING_BYTES_MAX: usize = 255;

/// Data of a type that is made of strings; `None` for other types.
pub(super) fn parse(kind: RecordType, text: &str) -> Option<Result<RData, String>> {
    let bad = || Err("a string is missing, too long, or not closed".to_owned());
    match kind {
        RecordType::TXT | RecordType::HINFO | RecordType::NAPTR => {}
        _ => return None,
    }
    let Some(all) = strings(text) else { return Some(bad()) };
    Some(match (kind, all.as_slice()) {
        (RecordType::TXT, [_, ..]) => Ok(RData::TXT(TXT::from_bytes(all.iter().map(Vec::as_slice).collect()))),
        (RecordType::HINFO, [cpu, os]) => {
            Ok(RData::HINFO(HINFO::from_bytes(cpu.as_slice().into(), os.as_slice().into())))
        }
        (RecordType::NAPTR, [order, preference, flags, services, regexp, _]) => {
            naptr(text, [order, preference], [flags, services, regexp])
        }
        _ => bad(),
    })
}

fn naptr(text: &str, numbers: [&Vec<u8>; 2], strings: [&Vec<u8>; 3]) -> Result<RData, String> {
    let number = |octets: &Vec<u8>| std::str::from_utf8(octets).ok()?.parse::<u16>().ok();
    let [Some(order), Some(preference)] = numbers.map(number) else {
        return Err("order and preference are numbers of 16 bits".to_owned());
    };
    let (word, ..) = names::word(text, 5).ok_or("there is no replacement")?;
    // RFC 3403 §4.1: flags are "characters from the set A-Z and 0-9".
    if !strings[0].iter().all(u8::is_ascii_alphanumeric) {
        return Err("flags are letters and digits".to_owned());
    }
    let [flags, services, regexp] = strings.map(|s| s.as_slice().into());
    Ok(RData::NAPTR(NAPTR::new(order, preference, flags, services, regexp, names::parse(word)?)))
}

/// Every string of `text`; `None` where one is no string.
fn strings(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut rest = text.bytes().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let quoted = match rest.peek() {
            None => return Some(all),
            Some(octet) => *octet == b'"',
        };
        if quoted {
            rest.next();
        }
        let mut string = Vec::new();
        loop {
            match rest.next() {
                None if quoted => return None,
                None => break,
                Some(b'"') if quoted => break,
                Some(octet) if !quoted && octet.is_ascii_whitespace() => break,
                Some(b'\\') => string.push(names::escaped(&mut rest)?),
                Some(octet) => string.push(octet),
            }
        }
        if string.len() > STRING_BYTES_MAX {
            return None;
        }
        all.push(string);
    }
}

/// Text that means the strings of a TXT.
pub(super) fn show(txt: &TXT) -> String {
    let one = |octet: &u8| match *octet {
        octet @ (b'"' | b'\\') => format!("\\{}", char::from(octet)),
        octet if octet == b' ' || octet.is_ascii_graphic() => char::from(octet).to_string(),
        octet => format!("\\{octet:03}"),
    };
    let quoted = |string: &[u8]| format!("\"{}\"", string.iter().map(one).collect::<String>());
    txt.txt_data.iter().map(|string| quoted(string)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_rfc_1035_writes_them() {
        for (text, want) in [
            ("a bc", Some(vec![&b"a"[..], b"bc"])),
            ("\"a b\" \"\" c\\ d", Some(vec![b"a b", b"", b"c d"])),
            ("\"\\200\\000\\\"\\\\\"", Some(vec![b"\xc8\x00\"\\"])),
            ("\"\u{fc}\"", Some(vec!["\u{fc}".as_bytes()])),
            ("", Some(vec![])),
            ("\"open", None),
            ("\\25", None),
            (&"x".repeat(256), None),
        ] {
            let got = strings(text);
            let got = got.as_ref().map(|all| all.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert_eq!(got, want, "{text}");
        }
        for (kind, text) in [
            (RecordType::TXT, ""),
            (RecordType::HINFO, "a"),
            (RecordType::NAPTR, "1 x \"\" \"\" \"\" ."),
            (RecordType::NAPTR, "1 1 \"?\" \"\" \"\" ."),
        ] {
            assert!(parse(kind, text).unwrap().is_err(), "{kind} {text}");
        }
    }

    #[test]
    fn a_txt_is_shown_such_that_it_is_read_again() {
        let all: Vec<u8> = (0..=254).collect();
        let txt = TXT::from_bytes(vec![b"hello world", b"", &all]);
        assert_eq!(parse(RecordType::TXT, &show(&txt)), Some(Ok(RData::TXT(txt))));
    }
}
