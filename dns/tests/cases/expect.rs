//! What a reply must be, line by line. Pure.
//!
//! In: the lines below an `ask`, a reply and how long it took. Out: the lines that don't hold, each with what came instead.

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::opt::EdnsCode;

use crate::stage::edes;
use crate::wording::COOKIE;

/// What came back for one question.
pub(crate) struct Came {
    pub(crate) octets: Option<Vec<u8>>,
    pub(crate) took: Duration,
    /// What its signature is (`signing::Sent::judge`).
    pub(crate) signature: String,
}

impl Came {
    /// The whole cookie that came along: both parts.
    pub(crate) fn cookie(&self) -> Option<Vec<u8>> {
        cookie(&Message::from_vec(self.octets.as_deref()?).ok()?).filter(|octets| octets.len() > 8)
    }
}

/// The lines that don't hold.
pub(crate) fn differences(block: &[(usize, String)], came: &Came) -> Vec<(usize, String)> {
    let first = block.first().map_or(0, |(line, _)| *line);
    let silence = block.iter().any(|(_, l)| l.trim() == "silence");
    let Some(octets) = &came.octets else {
        return if silence { Vec::new() } else { vec![(first, "no reply".to_owned())] };
    };
    let Ok(reply) = Message::from_vec(octets) else { return vec![(first, "the reply is no DNS message".to_owned())] };
    let mut wrong = Vec::new();
    for (line, text) in block {
        if let Err(why) = holds(text.trim(), &reply, octets.len(), came) {
            wrong.push((*line, format!("wanted `{}`, got {why}", text.trim())));
        }
    }
    for (section, records) in sections(&reply) {
        let wanted: Vec<&(usize, String)> = block.iter().filter(|(_, l)| is_record(l, section)).collect();
        wrong.extend(compare(section, &wanted, records));
    }
    if !wrong.is_empty() {
        wrong.push((first, format!("the whole reply:\n{}", indented(&reply.to_string()))));
    }
    wrong
}

fn indented(text: &str) -> String {
    text.lines().map(|l| format!("        {l}")).collect::<Vec<_>>().join("\n")
}

fn sections(reply: &Message) -> [(&'static str, &[Record]); 3] {
    [("answer", &reply.answers), ("authority", &reply.authorities), ("additional", &reply.additionals)]
}

fn is_record(line: &str, section: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.first() == Some(&section) && words.len() >= 4
}

/// One line that is no record.
fn holds(line: &str, reply: &Message, octets: usize, came: &Came) -> Result<(), String> {
    let took = came.took;
    let words: Vec<&str> = line.split_whitespace().collect();
    let check = |ok: bool, got: String| if ok { Ok(()) } else { Err(got) };
    match words.as_slice() {
        ["silence"] => Err("a reply".to_owned()),
        ["rcode", code] => check(rcode(reply.metadata.response_code) == *code, rcode(reply.metadata.response_code)),
        ["flags", wanted @ ..] => {
            let mut wanted = wanted.to_vec();
            wanted.sort_unstable();
            let got = flags(reply);
            check(wanted == got, got.join(" "))
        }
        ["ede", wanted @ ..] => {
            let mut got: Vec<String> = edes(reply).iter().map(u16::to_string).collect();
            got.sort();
            let mut wanted: Vec<&str> = wanted.iter().copied().filter(|w| *w != "none").collect();
            wanted.sort_unstable();
            check(got == wanted, format!("{got:?}"))
        }
        ["edns", "none"] => check(reply.edns.is_none(), "an OPT record".to_owned()),
        ["edns", wanted @ ..] => {
            let Some(edns) = &reply.edns else { return Err("no OPT record".to_owned()) };
            let got = format!("size={} version={}", edns.max_payload(), edns.version());
            let got = if edns.flags().dnssec_ok { format!("do {got}") } else { got };
            let subnet = edns.option(EdnsCode::Subnet).map(|option| Vec::<u8>::try_from(option).unwrap_or_default());
            // RFC 7871 §6: family, source, scope.
            let scope = subnet.and_then(|octets| octets.get(3).copied());
            let got = format!("{got} scope={}", scope.map_or_else(|| "none".to_owned(), |s| s.to_string()));
            let cookie = cookie(reply).map_or_else(|| "none".to_owned(), |octets| octets.len().to_string());
            let got = format!("{got} cookie={cookie}");
            check(wanted.iter().all(|w| got.split(' ').any(|g| g == *w)), got)
        }
        ["tsig", wanted] => check(came.signature == *wanted, came.signature.clone()),
        ["has", section, ..] | ["no", section, ..] => {
            let found = sections(reply).into_iter().find(|(name, _)| name == section);
            let (_, records) = found.ok_or_else(|| format!("no section `{section}`"))?;
            let (_, wanted) = line.split_once(' ').unwrap_or_default();
            let there = records.iter().any(|r| same(wanted, &shown(r)));
            check(there == (words[0] == "has"), format!("{:?}", records.iter().map(shown).collect::<Vec<_>>()))
        }
        ["octets", "<=", max] => check(octets <= number(max)?, octets.to_string()),
        ["took", "<=", max] => check(took <= duration(max)?, format!("{took:?}")),
        ["took", ">=", min] => check(took >= duration(min)?, format!("{took:?}")),
        [section @ ("answer" | "authority" | "additional"), rest @ ..] => {
            let (_, records) = sections(reply).into_iter().find(|(name, _)| name == section).unwrap();
            match rest {
                ["none"] => check(records.is_empty(), format!("{} records", records.len())),
                ["count", n] => check(records.len() == number(n)?, records.len().to_string()),
                [_, _, _, ..] => Ok(()),
                _ => Err("a line that can't be read".to_owned()),
            }
        }
        _ => Err("a line that can't be read".to_owned()),
    }
}

/// The cookie of a reply (RFC 7873 §4).
pub(crate) fn cookie(reply: &Message) -> Option<Vec<u8>> {
    let options = reply.edns.as_ref()?.options();
    let (_, found) = options.as_ref().iter().find(|(code, _)| u16::from(*code) == COOKIE)?;
    Vec::<u8>::try_from(found).ok()
}

/// Every wanted record is there once, and no other.
fn compare(section: &str, wanted: &[&(usize, String)], records: &[Record]) -> Vec<(usize, String)> {
    let Some((first, _)) = wanted.first() else { return Vec::new() };
    let mut left: Vec<String> = records.iter().map(shown).collect();
    let mut wrong = Vec::new();
    for (line, text) in wanted {
        match left.iter().position(|got| same(text.trim(), got)) {
            Some(at) => drop(left.remove(at)),
            None => wrong.push((*line, format!("wanted `{}`, which is not among {left:?}", text.trim()))),
        }
    }
    wrong.extend(left.iter().map(|got| (*first, format!("not wanted: {section} {got}"))));
    wrong
}

fn shown(record: &Record) -> String {
    format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data).trim_end().to_owned()
}

fn same(wanted: &str, got: &str) -> bool {
    let fields = |text: &str, n: usize| text.splitn(n, ' ').map(str::to_owned).collect::<Vec<_>>();
    let wanted = wanted.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    let (wanted, got) = (fields(&wanted, 4), fields(got, 4));
    let owner = format!("{}.", wanted[0].trim_end_matches('.'));
    let ttl = match wanted[1].as_str() {
        "*" => true,
        text => match text.strip_prefix("<=") {
            Some(max) => max.parse::<u32>().is_ok_and(|max| got[1].parse::<u32>().is_ok_and(|ttl| ttl <= max)),
            None => got[1] == text,
        },
    };
    let data = |fields: &[String]| fields.get(3).cloned().unwrap_or_default();
    owner == got[0] && ttl && wanted[2] == got[2] && glob(&data(&wanted), &data(&got))
}

/// `*` stands for any text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => {
            let Some(text) = text.strip_prefix(head) else { return false };
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| glob(rest, &text[at..]))
        }
    }
}

fn rcode(code: ResponseCode) -> String {
    let word = match code {
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::BADVERS | ResponseCode::BADSIG => "BADVERS",
        other => return format!("{other:?}").to_ascii_uppercase(),
    };
    word.to_owned()
}

fn flags(reply: &Message) -> Vec<&'static str> {
    let m = &reply.metadata;
    let all = [
        ("aa", m.authoritative),
        ("ad", m.authentic_data),
        ("cd", m.checking_disabled),
        ("ra", m.recursion_available),
        ("rd", m.recursion_desired),
        ("tc", m.truncation),
    ];
    all.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect()
}

pub(crate) fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}`, which is no number"))
}

/// `300ms`, `10s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let n = number(digits)? as u64;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(n)),
        "s" => Ok(Duration::from_secs(n)),
        "m" => Ok(Duration::from_secs(60 * n)),
        "h" => Ok(Duration::from_secs(3600 * n)),
        _ => Err(format!("`{text}`, which is no time")),
    }
}

#[test]
fn a_line_holds_or_says_what_came() {
    let mut reply = crate::stage::query("a.example", hickory_proto::rr::RecordType::A);
    reply.metadata.response_code = ResponseCode::NXDomain;
    let octets = Some(reply.to_vec().unwrap());
    let came = Came { octets, took: Duration::from_millis(20), signature: "none".to_owned() };
    for (line, holds) in [
        ("  rcode NXDOMAIN", true),
        ("  rcode NOERROR", false),
        ("  flags rd", true),
        ("  flags aa rd", false),
        ("  ede none", true),
        ("  answer none", true),
        ("  answer a.example 5 A 192.0.2.1", false),
        ("  took <= 20ms", true),
        ("  edns size=4096", true),
        ("  tsig none", true),
        ("  tsig ok", false),
        ("  no answer a.example * A *", true),
        ("  has answer a.example * A *", false),
        ("  what", false),
        ("  silence", false),
    ] {
        assert_eq!(differences(&[(1, line.to_owned())], &came).is_empty(), holds, "{line}");
    }
    assert!(same("answer a.b <=5 TXT x*z", "a.b. 4 TXT xyz") && !same("answer a.b 5 A *", "a.b. 4 A 1"));
}
