//! Record data as text and back: the presentation formats, also of what the parser we use lacks. Pure and total.
//!
//! In: a type's word, a value, the origin of relative names. Out: record data, or a sentence on what is wrong with it; and text that gives
//! the same data again. Sources: RFC 1035 §5.1, RFC 3597 §5 (`\# LENGTH HEX` and `TYPEn`), RFC 1876 (LOC), RFC 6672 (DNAME), RFC 7553 (URI).

use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable as _, BinEncoder, NameEncoding, Restrict};

use super::{is_dnssec, map_names, names, strings, to_dname};

const LOC: u16 = 29;
const URI: u16 = 256;
/// Data of one record.
const DATA_BYTES_MAX: usize = 65_535;

/// The type that a word names: its mnemonic, or `TYPEn`.
pub fn kind(word: &str) -> Option<RecordType> {
    let word = word.to_ascii_uppercase();
    let kind = match word.as_str() {
        "LOC" => RecordType::Unknown(LOC),
        "URI" => RecordType::Unknown(URI),
        // Not a type of the protocol.
        "ANAME" => return None,
        _ => match word.strip_prefix("TYPE") {
            Some(number) => RecordType::from(number.parse::<u16>().ok()?),
            None => word.parse().ok()?,
        },
    };
    Some(kind)
}

/// A type's word, such that [`kind`] gives the type again.
pub fn word(kind: RecordType) -> String {
    match u16::from(kind) {
        LOC => "LOC".to_owned(),
        URI => "URI".to_owned(),
        number => match kind {
            RecordType::Unknown(_) => format!("TYPE{number}"),
            known => known.to_string(),
        },
    }
}

/// Whether a zone may hold records of a type (RFC 6895 §3.1): no meta type, nothing that signing makes.
fn is_data(kind: RecordType) -> bool {
    let number = u16::from(kind);
    number != 0 && !matches!(number, 41 | 128..=255 | 10 | 65_305) && (kind == RecordType::DS || !is_dnssec(kind))
}

/// The data that `value` means; relative names in it lie below `origin`.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(kind: RecordType, value: &str, origin: &Name) -> Result<RData, String> {
    if !is_data(kind) {
        return Err(format!("type {} is none that a zone is given", word(kind)));
    }
    if value.len() > DATA_BYTES_MAX {
        return Err(format!("longer than {DATA_BYTES_MAX} octets"));
    }
    let data = match value.trim_start().strip_prefix("\\#") {
        Some(generic) => generic_data(kind, generic)?,
        None => match (kind, u16::from(kind)) {
            (RecordType::DNAME, _) => {
                let target = names::parse(value.trim())?;
                to_dname(&whole(&target, origin)?).ok_or("the target is no name")?
            }
            (_, LOC) => unknown(LOC, loc(value).ok_or("not `D [M [S]] N|S D [M [S]] E|W ALT[m] [SIZE [HP [VP]]]`")?),
            (_, URI) => unknown(URI, uri(value).ok_or("not `PRIORITY WEIGHT \"TARGET\"`")?),
            _ => match strings::parse(kind, value) {
                Some(data) => data?,
                None => named(kind, value)?,
            },
        },
    };
    let data = map_names(data, |kind| format!("type {kind} can't be served"), |name| whole(name, origin))?;
    // The parser takes some text whose octets no resolver takes: a CAA whose tag is no word (RFC 8659 §4.1).
    read(kind, &octets(&data)).map(|_| data)
}

/// Data whose name, where it has one, we read by ourselves.
fn named(kind: RecordType, value: &str) -> Result<RData, String> {
    let Some((word, before, after)) = names::place(kind).and_then(|at| names::word(value, at)) else {
        return RData::try_from_str(kind, value).map_err(|e| e.to_string());
    };
    let name = names::parse(word)?;
    let data = RData::try_from_str(kind, &format!("{before}name.{after}")).map_err(|e| e.to_string())?;
    map_names(data, |kind| format!("type {kind} can't be served"), |_| Ok(name.clone()))
}

fn whole(name: &Name, origin: &Name) -> Result<Name, String> {
    let mut name = if name.is_fqdn() {
        name.clone()
    } else {
        name.clone().append_domain(origin).map_err(|e| format!("name `{name}`: {e}"))?
    };
    name.set_fqdn(true);
    Ok(name)
}

fn unknown(code: u16, octets: Vec<u8>) -> RData {
    RData::Unknown { code: RecordType::from(code), rdata: NULL::with(octets) }
}

/// RFC 3597 §5, what follows `\#`.
fn generic_data(kind: RecordType, text: &str) -> Result<RData, String> {
    let mut words = text.split_whitespace();
    let length: usize = words.next().and_then(|w| w.parse().ok()).ok_or("`\\#` without a length")?;
    let hex: Vec<u8> = words.flat_map(str::bytes).collect();
    let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let octet = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    let octets: Option<Vec<u8>> = hex.chunks(2).map(octet).collect();
    let octets = octets.filter(|o| o.len() == length).ok_or("`\\#` whose length or digits are wrong")?;
    read(kind, &octets)
}

/// Data as it stands in a message.
fn read(kind: RecordType, octets: &[u8]) -> Result<RData, String> {
    let length = u16::try_from(octets.len()).map_err(|_| format!("longer than {DATA_BYTES_MAX} octets"))?;
    if length == 0 {
        return Err("no data".to_owned());
    }
    let mut decoder = BinDecoder::new(octets);
    let data = RData::read(&mut decoder, kind, Restrict::new(length)).map_err(|e| e.to_string())?;
    if decoder.is_empty() { Ok(data) } else { Err("more data than the type has".to_owned()) }
}

/// RFC 7553 §4.
fn uri(text: &str) -> Option<Vec<u8>> {
    let mut words = text.trim().splitn(3, char::is_whitespace);
    let (priority, weight): (u16, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let target = words.next()?.trim().strip_prefix('"')?.strip_suffix('"')?;
    let fits = !target.is_empty() && !target.contains('"');
    fits.then(|| [&priority.to_be_bytes()[..], &weight.to_be_bytes(), target.as_bytes()].concat())
}

/// RFC 1876 §3.
fn loc(text: &str) -> Option<Vec<u8>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (latitude, rest) = angle(&words, "N", "S", 90)?;
    let (longitude, rest) = angle(rest, "E", "W", 180)?;
    let altitude = i64::try_from(centimetres(rest.first()?, true)?.checked_add(10_000_000)?).ok()?;
    let altitude = u32::try_from(altitude).ok()?;
    let precision = |at: usize, default: u8| match rest.get(at) {
        Some(word) => exponent(centimetres(word, false)?),
        None => Some(default),
    };
    let sizes = [precision(1, 0x12)?, precision(2, 0x16)?, precision(3, 0x13)?];
    let mut octets = vec![0];
    octets.extend(sizes);
    for number in [latitude, longitude, altitude] {
        octets.extend(number.to_be_bytes());
    }
    (rest.len() <= 4).then_some(octets)
}

/// Degrees, minutes, seconds and a direction as thousandths of seconds around 2³¹.
fn angle<'w, 't>(words: &'w [&'t str], plus: &str, minus: &str, most: u32) -> Option<(u32, &'w [&'t str])> {
    let end = words.iter().take(4).position(|w| w.eq_ignore_ascii_case(plus) || w.eq_ignore_ascii_case(minus))?;
    let degrees: u32 = words.first().filter(|_| (1..=3).contains(&end))?.parse().ok()?;
    let minutes: u32 = words.get(1).filter(|_| end > 1).map_or(Some(0), |w| w.parse().ok())?;
    let seconds = words.get(2).filter(|_| end > 2).map_or(Some(0), |w| thousandths(w))?;
    if degrees > most || minutes > 59 || seconds > 59_999 {
        return None;
    }
    let all = degrees * 3_600_000 + minutes * 60_000 + seconds;
    let around = 1_u32 << 31;
    let word = words[end];
    let number = if word.eq_ignore_ascii_case(plus) { around + all } else { around - all };
    (all <= most * 3_600_000).then_some((number, &words[end + 1..]))
}

fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(part)
}

fn centimetres(text: &str, signed: bool) -> Option<i128> {
    let text = text.strip_suffix(['m', 'M']).unwrap_or(text);
    let (minus, text) = match text.strip_prefix('-') {
        Some(rest) if signed => (true, rest),
        Some(_) => return None,
        None => (false, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 2 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part: i128 = format!("{part:0<2}").parse().ok()?;
    let all = i128::from(whole.parse::<u32>().ok()?) * 100 + part;
    Some(if minus { -all } else { all })
}

/// A mantissa and a power of ten in one octet.
fn exponent(mut centimetres: i128) -> Option<u8> {
    let mut power = 0_u8;
    while centimetres > 9 {
        centimetres /= 10;
        power += 1;
    }
    (power <= 9).then(|| u8::try_from(centimetres).ok().map(|m| m << 4 | power)).flatten()
}

/// Text for `data` that [`parse`] makes the same data of.
pub fn show(data: &RData) -> String {
    let text = match data {
        RData::TXT(txt) => strings::show(txt),
        data => data.to_string(),
    };
    let same = parse(data.record_type(), &text, &Name::root()).is_ok_and(|back| back == *data);
    if same { text } else { generic(data) }
}

/// RFC 3597 §5.
fn generic(data: &RData) -> String {
    let octets = octets(data);
    let hex: String = octets.iter().map(|o| format!("{o:02x}")).collect();
    format!("\\# {} {hex}", octets.len())
}

/// Data as it stands in a message, its names whole; nothing where it can't be written.
fn octets(data: &RData) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    if data.emit(&mut encoder).is_err() {
        octets.clear();
    }
    octets
}

/// Whether data is whole: what an UPDATE brings may be anything.
pub fn is_plain(data: &RData) -> bool {
    let mut octets = Vec::new();
    let written = data.emit(&mut BinEncoder::new(&mut octets)).is_ok() && !octets.is_empty();
    let named = data.record_type() != RecordType::DNAME || super::dname(data).is_some();
    written && named && is_data(data.record_type()) && !super::hides_names(data.record_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_type_is_read_and_written_again() {
        let origin = Name::from_ascii("example.com.").unwrap();
        for (word_, value) in [
            ("A", "192.0.2.1"),
            ("AAAA", "2001:db8::1"),
            ("CNAME", "www"),
            ("NS", "ns1.example.net."),
            ("MX", "10 mail"),
            ("TXT", "\"v=spf1 -all\" \"second string\""),
            ("SRV", "0 5 5060 sip"),
            ("CAA", "0 issue \"ca.example.net\""),
            ("PTR", "host.example.com."),
            ("NAPTR", "100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:info@example.com!\" ."),
            ("SVCB", "1 svc alpn=\"h2,h3\" port=8443"),
            ("HTTPS", "1 . alpn=\"h2\" ipv4hint=192.0.2.1"),
            ("TLSA", "3 1 1 d2abde240d7cd3ee6b4b28c54df034b97983a1d16e8a410e4561cb106618e971"),
            ("SSHFP", "4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789"),
            ("DS", "60485 13 2 d4b7d520e7bb5f0f67674a0cceb1e3e0614b93c4f9e99b8383f6a1e4469da50a"),
            ("LOC", "42 21 54 N 71 06 18 W -24m 30m"),
            ("HINFO", "\"PC\" \"Linux\""),
            ("DNAME", "other"),
            ("URI", "10 1 \"https://example.com/\""),
            ("OPENPGPKEY", "mQENBFVHm5sBCACn"),
            ("TYPE65400", "\\# 3 0a0b0c"),
            ("A", "\\# 4 c0000201"),
        ] {
            let kind = kind(word_).unwrap_or_else(|| panic!("{word_}"));
            let data = parse(kind, value, &origin).unwrap_or_else(|e| panic!("{word_} {value}: {e}"));
            assert_eq!(data.record_type(), kind, "{word_}");
            assert!(is_plain(&data), "{word_}");
            let again = parse(super::kind(&word(kind)).unwrap(), &show(&data), &Name::root());
            assert_eq!(again.as_ref(), Ok(&data), "{word_}: {}", show(&data));
        }
    }

    #[test]
    fn locations_are_those_of_rfc_1876() {
        let octets = loc("42 21 54 N 71 06 18 W -24m 30m").unwrap();
        assert_eq!(octets, [0, 0x33, 0x16, 0x13, 0x89, 0x17, 0x2d, 0xd0, 0x70, 0xbe, 0x15, 0xf0, 0, 0x98, 0x8d, 0x20]);
        for bad in
            ["", "42 N", "91 N 0 E 0m", "42 61 N 0 E 0m", "1 1 1 1 N 0 E 0m", "42 N 71 W", "42 N 71 W 1m 1m 1m 1m 1m"]
        {
            assert_eq!(loc(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_no_zone_is_given_is_refused_by_type() {
        for (word, value) in [
            ("RRSIG", "\\# 1 00"),
            ("TYPE41", "\\# 1 00"),
            ("TSIG", "\\# 1 00"),
            ("ANY", "x"),
            ("AXFR", "x"),
            ("NSEC", "a. A"),
            ("TYPE17", "\\# 2 0000"),
            ("A", "\\# 3 c00002"),
            ("A", "\\# 5 c000020100"),
            ("A", "\\# 4 c00002zz"),
            ("A", ""),
            ("CAA", "0 is.1 port=8443"),
        ] {
            let kind = kind(word).unwrap();
            assert!(parse(kind, value, &Name::root()).is_err(), "{word} {value}");
        }
    }
}
