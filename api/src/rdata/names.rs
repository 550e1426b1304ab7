//! Names as text and back. Pure and total.
//!
//! In: text as objects and zone files spell names, or a name. Out: the name, or the text that means it. Labels may hold any octets (RFC 2181
//! §11): a `\` before a character that is no digit takes it as it is, and "`\DDD` where each D is a digit is the octet corresponding to the
//! decimal number described by DDD" (RFC 1035 §5.1). The parser that we use elsewhere reads DDD as octal, and refuses much of what is lawful.

use hickory_proto::rr::{Name, RecordType};

/// A name out of text; absolute where a dot ends it.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(text: &str) -> Result<Name, String> {
    if text == "." {
        return Ok(Name::root());
    }
    let bad = |why: &str| format!("`{text}` is no name: {why}");
    let (mut labels, mut label) = (Vec::new(), Vec::new());
    let mut rest = text.bytes();
    let mut absolute = false;
    while let Some(octet) = rest.next() {
        absolute = octet == b'.';
        match octet {
            b'.' if label.is_empty() => return Err(bad("an empty label")),
            b'.' => labels.push(std::mem::take(&mut label)),
            b'\\' => label.push(escaped(&mut rest).ok_or_else(|| bad("what follows a `\\`"))?),
            octet if octet.is_ascii_graphic() => label.push(octet),
            _ => return Err(bad("a character that is to be written `\\DDD`, or in Punycode")),
        }
    }
    if !absolute && !label.is_empty() {
        labels.push(label);
    }
    let mut name = Name::from_labels(labels).map_err(|e| bad(&e.to_string()))?;
    name.set_fqdn(absolute);
    Ok(name)
}

/// The octet that what follows a `\` means.
pub(super) fn escaped(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let digit = |octet: u8| octet.is_ascii_digit().then(|| u16::from(octet - b'0'));
    let first = rest.next()?;
    match digit(first) {
        None => first.is_ascii().then_some(first),
        Some(hundreds) => {
            let (tens, ones) = (digit(rest.next()?)?, digit(rest.next()?)?);
            u8::try_from(hundreds * 100 + tens * 10 + ones).ok()
        }
    }
}

/// Text that [`parse`] makes the same name of, whatever stands around it in a zone file.
pub fn show(name: &Name) -> String {
    let labels: Vec<String> = name.iter().map(|label| label.iter().map(|o| spell(*o)).collect()).collect();
    let dot = if name.is_fqdn() { "." } else { "" };
    labels.join(".") + dot
}

fn spell(octet: u8) -> String {
    match octet {
        b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => format!("\\{}", char::from(octet)),
        octet if octet.is_ascii_graphic() => char::from(octet).to_string(),
        octet => format!("\\{octet:03}"),
    }
}

/// Where in the data of a type its name stands, as the how-manieth word.
pub(super) fn place(kind: RecordType) -> Option<usize> {
    match kind {
        RecordType::CNAME | RecordType::NS | RecordType::PTR => Some(0),
        RecordType::MX | RecordType::SVCB | RecordType::HTTPS => Some(1),
        RecordType::SRV => Some(3),
        _ => None,
    }
}

/// The `n`th word of `text`, and what stands before and behind it. Blanks in quotes, and behind a `\`, end no word.
pub(super) fn word(text: &str, n: usize) -> Option<(&str, &str, &str)> {
    let (mut at, mut start, mut quoted, mut skip) = (0, None, false, false);
    for (i, c) in text.char_indices().chain([(text.len(), ' ')]) {
        let blank = c.is_whitespace() && !quoted && !skip;
        match (start, blank) {
            (None, false) => start = Some(i),
            (Some(from), true) if at == n => return Some((&text[from..i], &text[..from], &text[i..])),
            (Some(_), true) => (at, start) = (at + 1, None),
            _ => {}
        }
        quoted ^= c == '"' && !skip;
        skip = c == '\\' && !skip;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_rfc_1035_writes_them() {
        for (text, labels, absolute) in [
            ("www.example.com.", Some(vec![&b"www"[..], b"example", b"com"]), true),
            ("www", Some(vec![b"www"]), false),
            (".", Some(vec![]), true),
            ("", Some(vec![]), false),
            ("a\\.b.c.", Some(vec![b"a.b", b"c"]), true),
            ("c\\.", Some(vec![b"c."]), false),
            ("\\065\\000\\255.x.", Some(vec![b"A\x00\xff", b"x"]), true),
            ("0/25.2.0.192.in-addr.arpa.", Some(vec![b"0/25", b"2", b"0", b"192", b"in-addr", b"arpa"]), true),
            ("*.-a._b.", Some(vec![b"*", b"-a", b"_b"]), true),
            ("a..b", None, false),
            (".a", None, false),
            ("a b", None, false),
            ("b\u{fc}cher", None, false),
            ("a\\", None, false),
            ("a\\25", None, false),
            ("a\\256", None, false),
            (&"a".repeat(64), None, false),
        ] {
            let name = parse(text);
            let got = name.as_ref().ok().map(|n| (n.iter().collect::<Vec<_>>(), n.is_fqdn()));
            assert_eq!(got, labels.map(|l| (l, absolute)), "{text:?}: {name:?}");
        }
    }

    #[test]
    fn words_are_found_between_quotes() {
        let text = "1 1 \"s x\" \"\" \"!^.*$!\\\" !\"  _sip.\\ x ";
        for (n, want) in [(0, "1"), (2, "\"s x\""), (3, "\"\""), (4, "\"!^.*$!\\\" !\""), (5, "_sip.\\ x")] {
            assert_eq!(word(text, n).map(|w| w.0), Some(want), "{n}");
        }
        assert_eq!(word(text, 6), None);
    }

    proptest! {
        #[test]
        fn every_name_is_shown_such_that_it_is_read_again(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let Ok(mut name) = Name::from_labels(labels) else { return Ok(()) };
            name.set_fqdn(true);
            let text = show(&name);
            let read = parse(&text);
            prop_assert_eq!(read.as_ref().map(|n| (n.iter().collect::<Vec<_>>(), n.is_fqdn())), Ok((name.iter().collect::<Vec<_>>(), true)), "{}", text);
        }
    }
}
