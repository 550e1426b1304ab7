//! Zone files: master files as RFC 1035 §5 has them, read record by record. Pure, total and bounded.
//!
//! In: the text, the zone's apex. Out: the records, and for each line that is none a fault with its number; the other lines count. What
//! brings other files (`$INCLUDE`) or makes records (`$GENERATE`) is refused. The SOA is left out: the zone has its own.

use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::txt::parse_ttl;

use crate::rdata::{names, text};

/// Where a record says nothing.
pub const TTL_DEFAULT: u32 = 300;
/// RFC 2181 §8: a larger one would be none.
pub(crate) const TTL_MAX: u32 = i32::MAX as u32;
/// A file; ConfigMaps hold no more either.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Faults that are named; then the rest of the file is not read.
const FAULTS_MAX: usize = 50;
/// One entry with everything in its parentheses.
const ENTRY_BYTES_MAX: usize = 128 * 1024;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Its records.
    pub records: Vec<Record>,
    /// `line 7: …`.
    pub faults: Vec<String>,
}

/// Reads a file.
pub fn parse(text: &str, apex: &Name) -> Parsed {
    let mut parsed = Parsed::default();
    if text.len() > FILE_BYTES_MAX {
        parsed.faults.push(format!("is longer than {FILE_BYTES_MAX} octets"));
        return parsed;
    }
    let mut reader = Reader { origin: apex.clone(), ttl: None, last_ttl: None, owner: None };
    for (line, entry) in Entries::new(text) {
        let read = entry.and_then(|entry| reader.take(&entry));
        match read {
            Ok(Some(record)) => parsed.records.push(record),
            Ok(None) => {}
            Err(why) => parsed.faults.push(format!("line {line}: {why}")),
        }
        if parsed.faults.len() == FAULTS_MAX {
            parsed.faults.push(format!("line {line}: too many faults, the rest is not read"));
            break;
        }
    }
    parsed
}

/// One entry: whether it begins with a blank, and its words as written.
#[derive(Debug, PartialEq)]
struct Entry {
    indented: bool,
    words: Vec<String>,
}

/// Cuts a text into entries: a line, or more where parentheses are open.
struct Entries<'t> {
    rest: std::iter::Peekable<std::str::CharIndices<'t>>,
    line: usize,
}

impl<'t> Entries<'t> {
    fn new(text: &'t str) -> Self {
        Self { rest: text.char_indices().peekable(), line: 1 }
    }

    /// One entry, up to the end of its line.
    fn entry(&mut self) -> Result<Entry, String> {
        let indented = self.rest.peek().is_some_and(|(_, c)| matches!(c, ' ' | '\t'));
        let (mut words, mut word, mut depth, mut size) = (Vec::new(), String::new(), 0_usize, 0_usize);
        let (mut quoted, mut comment, mut fault) = (false, false, None);
        while let Some((_, c)) = self.rest.next() {
            size += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                comment = false;
            }
            match c {
                '\n' if quoted => {
                    fault = Some("a quote is not closed on its line");
                    break;
                }
                '\n' if depth == 0 => break,
                _ if comment || fault.is_some() => {}
                '\\' => {
                    word.push(c);
                    word.extend(self.rest.next_if(|(_, next)| *next != '\n').map(|(_, next)| next));
                }
                '"' => {
                    quoted = !quoted;
                    word.push(c);
                }
                _ if quoted => word.push(c),
                ';' => comment = true,
                '(' => depth += 1,
                ')' if depth == 0 => fault = Some("a parenthesis is closed that none opened"),
                ')' => depth -= 1,
                c if c.is_whitespace() => {}
                c => word.push(c),
            }
            let ends = !quoted && (c.is_whitespace() || matches!(c, '(' | ')' | ';'));
            if ends && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if size > ENTRY_BYTES_MAX {
                fault = Some("is too long");
            }
        }
        if !word.is_empty() {
            words.push(word);
        }
        match fault {
            Some(fault) => Err(fault.to_owned()),
            None if quoted => Err("a quote is not closed".to_owned()),
            None if depth > 0 => Err("a parenthesis is not closed".to_owned()),
            None => Ok(Entry { indented, words }),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = (usize, Result<Entry, String>);

    fn next(&mut self) -> Option<Self::Item> {
        self.rest.peek()?;
        let line = self.line;
        Some((line, self.entry()))
    }
}

/// What earlier entries say of later ones.
struct Reader {
    origin: Name,
    ttl: Option<u32>,
    last_ttl: Option<u32>,
    owner: Option<Name>,
}

impl Reader {
    fn take(&mut self, entry: &Entry) -> Result<Option<Record>, String> {
        let Some(first) = entry.words.first() else { return Ok(None) };
        if first.starts_with('$') && !entry.indented {
            return self.directive(&first.to_ascii_uppercase(), &entry.words[1..]).map(|()| None);
        }
        let mut words = entry.words.as_slice();
        if !entry.indented {
            self.owner = Some(self.name(first)?);
            words = &words[1..];
        }
        let owner = self.owner.clone().ok_or("there is no owner before it")?;
        let mut said = None;
        // RFC 1035 §5.1: TTL and class stand in any order, and either may be missing.
        let kind = loop {
            let (word, rest) = words.split_first().ok_or("there is no type")?;
            words = rest;
            match word.to_ascii_uppercase().as_str() {
                "IN" => {}
                "CH" | "HS" | "CS" | "NONE" | "ANY" => return Err(format!("class {word}: only IN is served")),
                upper => match text::kind(upper) {
                    Some(kind) => break kind,
                    None => said = Some(parse_ttl(upper).map_err(|_| format!("`{word}` is no type and no TTL"))?),
                },
            }
        };
        self.last_ttl = said.or(self.last_ttl);
        let ttl = said.or(self.ttl).or(self.last_ttl).unwrap_or(TTL_DEFAULT).min(TTL_MAX);
        if kind == RecordType::SOA {
            return Ok(None);
        }
        let origin = names::show(&self.origin);
        let words: Vec<&str> = words.iter().map(|w| if w == "@" { origin.as_str() } else { w.as_str() }).collect();
        let data = text::parse(kind, &words.join(" "), &self.origin)
            .map_err(|why| format!("record `{owner} {}`: {why}", text::word(kind)))?;
        Ok(Some(Record::from_rdata(owner, ttl, data)))
    }

    fn directive(&mut self, word: &str, words: &[String]) -> Result<(), String> {
        match (word, words) {
            ("$ORIGIN", [name]) => self.origin = self.name(name)?,
            ("$TTL", [ttl]) => self.ttl = Some(parse_ttl(ttl).map_err(|_| format!("`{ttl}` is no TTL"))?),
            ("$INCLUDE", _) => return Err("$INCLUDE is refused: the hub reads no other file".to_owned()),
            ("$GENERATE", _) => return Err("$GENERATE is refused: write the records".to_owned()),
            _ => return Err(format!("`{word}` is no directive that is understood")),
        }
        Ok(())
    }

    fn name(&self, word: &str) -> Result<Name, String> {
        if word == "@" {
            return Ok(self.origin.clone());
        }
        let name = names::parse(word)?;
        let mut name = if name.is_fqdn() {
            name
        } else {
            name.append_domain(&self.origin).map_err(|e| format!("`{word}`: {e}"))?
        };
        name.set_fqdn(true);
        Ok(name.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apex() -> Name {
        Name::from_ascii("example.com.").unwrap()
    }

    #[test]
    fn a_file_is_read_as_rfc_1035_says() {
        let file = concat!(
            "$TTL 1h ; everything\n",
            "@ IN SOA ns1 hostmaster ( 1 2 3\n   4 5 ) ; ours is another\n",
            "  NS ns1\n",
            "ns1 60 IN A 192.0.2.1\n",
            "    IN 60 AAAA 2001:db8::1\n",
            "\n",
            "www CNAME @\n",
            "txt TXT \"a ; b\" ( \"c\"\n \"(d)\" ) ; e\n",
            "$ORIGIN sub.example.com.\n",
            "x A 192.0.2.2\n",
            "a\\.b A 192.0.2.3\n",
            "0/25\\065 NS \\000.x\n",
            "Other.Example.COM. MX 10 x\n",
        );
        let parsed = parse(file, &apex());
        assert_eq!(parsed.faults, [""; 0]);
        let got: Vec<String> =
            parsed.records.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect();
        assert_eq!(
            got,
            [
                "example.com. 3600 NS ns1.example.com.",
                "ns1.example.com. 60 A 192.0.2.1",
                "ns1.example.com. 60 AAAA 2001:db8::1",
                "www.example.com. 3600 CNAME example.com.",
                "txt.example.com. 3600 TXT a ; bc(d)",
                "x.sub.example.com. 3600 A 192.0.2.2",
                "a\\.b.sub.example.com. 3600 A 192.0.2.3",
                "0\\/25a.sub.example.com. 3600 NS \\000.x.sub.example.com.",
                "other.example.com. 3600 MX 10 x.sub.example.com.",
            ]
        );
    }

    #[test]
    fn every_fault_is_named_by_its_line_and_the_others_count() {
        let file = "a A 192.0.2.1\n$INCLUDE /etc/passwd\n$GENERATE 1-9 a A 1.2.3.$\nb A 1.2.3\nc CH A 192.0.2.1\nd FOO x\n\
                    $WHAT\ne TXT \"open\nf ) A 192.0.2.1\nlast A 192.0.2.9\n  $INCLUDE /etc/passwd\n";
        let parsed = parse(file, &apex());
        assert_eq!(parsed.records.len(), 2, "{parsed:?}");
        let lines: Vec<&str> = parsed.faults.iter().filter_map(|f| f.split_once(':')).map(|f| f.0).collect();
        let expected = ["line 2", "line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9", "line 11"];
        assert_eq!(lines, expected, "{:?}", parsed.faults);
        assert!(parsed.faults[0].contains("$INCLUDE is refused"), "{}", parsed.faults[0]);
        assert!(parse(" A 192.0.2.1", &apex()).faults[0].contains("no owner"));
        assert!(parse("a ( A 192.0.2.1", &apex()).faults[0].contains("not closed"));
        assert!(parse(&"x".repeat(FILE_BYTES_MAX + 1), &apex()).faults[0].contains("longer than"));
        assert_eq!(parse(&"b A 1.2.3\n".repeat(1000), &apex()).faults.len(), FAULTS_MAX + 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "([ a-z0-9@$().;\"\\\\\n\t]|TXT|A |IN |\\PC){0,200}") {
            let parsed = parse(&text, &apex());
            prop_assert!(parsed.records.len() + parsed.faults.len() <= text.len() + 1);
        }
    }
}
