//! QPACK without a dynamic table: what is allowed to a server that announces none. Pure.
//!
//! In: an encoded field section. Out: its fields, one by one, and the other way round. Nothing is remembered from one section to the next, so
//! that no section waits for another and none can make later ones large. Source: RFC 9204 (§4.5, Appendix A), RFC 9114 §4.2.2 (size).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::huffman;

/// What a field counts beside its octets (RFC 9114 §4.2.2).
const FIELD_BYTES: usize = 32;

/// Why a section gives no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undecoded {
    /// It is no section, or needs a dynamic table (QPACK_DECOMPRESSION_FAILED).
    Broken,
    /// It is longer than it may be.
    TooLong,
}

/// Bounds on a section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes_max: usize,
    pub(super) fields_max: usize,
}

/// Hands each field of a section to `each`; both stop at the first error, `each`'s inside.
pub(super) fn decode<E>(
    mut section: &[u8],
    bounds: Bounds,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<Result<(), E>, Undecoded> {
    let section = &mut section;
    // "Required Insert Count" and "Base": both speak of a table that is not there.
    let (required, base) = (integer(section, 8)?, *section.first().ok_or(Undecoded::Broken)?);
    integer(section, 7)?;
    if required != 0 || base & 0x80 != 0 {
        return Err(Undecoded::Broken);
    }
    let (mut name, mut value) = (Vec::new(), Vec::new());
    let (mut bytes, mut fields) = (0_usize, 0_usize);
    while let Some(&first) = section.first() {
        name.clear();
        value.clear();
        match first {
            // Indexed, of the static table.
            0xc0.. => {
                let (known, of_it) = known(integer(section, 6)?)?;
                name.extend_from_slice(known.as_bytes());
                value.extend_from_slice(of_it.as_bytes());
            }
            // Literal with the name of the static table.
            0x50..=0x5f | 0x70..=0x7f => {
                name.extend_from_slice(known(integer(section, 4)?)?.0.as_bytes());
                string(section, 7, &mut value)?;
            }
            // Literal with a literal name.
            0x20..=0x3f => {
                string(section, 3, &mut name)?;
                string(section, 7, &mut value)?;
            }
            // All others are of the dynamic table.
            _ => return Err(Undecoded::Broken),
        }
        fields += 1;
        bytes = bytes.saturating_add(name.len() + value.len() + FIELD_BYTES);
        if bytes > bounds.bytes_max || fields > bounds.fields_max {
            return Err(Undecoded::TooLong);
        }
        if let Err(error) = each(&name, &value) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn known(index: usize) -> Result<(&'static str, &'static str), Undecoded> {
    STATIC.get(index).copied().ok_or(Undecoded::Broken)
}

/// An integer whose first octet has `bits` of it (RFC 7541 §5.1); more than lengths can be is none.
fn integer(from: &mut &[u8], bits: u32) -> Result<usize, Undecoded> {
    let (&first, mut rest) = from.split_first().ok_or(Undecoded::Broken)?;
    let mask = (1_u64 << bits) - 1;
    let mut number = u64::from(first) & mask;
    if number == mask {
        let mut shift = 0;
        loop {
            let (&octet, further) = rest.split_first().ok_or(Undecoded::Broken)?;
            rest = further;
            number += u64::from(octet & 0x7f) << shift;
            shift += 7;
            if octet & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return Err(Undecoded::Broken);
            }
        }
    }
    *from = rest;
    usize::try_from(number).map_err(|_| Undecoded::Broken)
}

/// A string whose length has `bits` in its first octet, behind the bit that says how it is coded.
fn string(from: &mut &[u8], bits: u32, out: &mut Vec<u8>) -> Result<(), Undecoded> {
    let coded = *from.first().ok_or(Undecoded::Broken)? >> bits & 1 == 1;
    let length = integer(from, bits)?;
    let (octets, rest) = from.split_at_checked(length).ok_or(Undecoded::Broken)?;
    *from = rest;
    if coded {
        return huffman::decode(octets, out).ok_or(Undecoded::Broken);
    }
    out.extend_from_slice(octets);
    Ok(())
}

/// Begins a section.
pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
}

/// Appends the field that says a status.
pub(super) fn status(out: &mut Vec<u8>, status: u16) {
    let index = match status {
        103 => 24,
        200 => 25,
        304 => 26,
        404 => 27,
        503 => 28,
        100 => 63,
        204 => 64,
        206 => 65,
        302 => 66,
        400 => 67,
        403 => 68,
        421 => 69,
        425 => 70,
        500 => 71,
        _ => return field(out, ":status", status.to_string().as_bytes(), false),
    };
    put(out, 0xc0, 6, index);
}

/// Appends a field. `secret`: whoever passes it on must not put it into a table either.
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &[u8], secret: bool) {
    static NAMES: LazyLock<HashMap<&'static str, usize>> =
        LazyLock::new(|| STATIC.iter().enumerate().rev().map(|(at, (name, _))| (*name, at)).collect());
    match NAMES.get(name) {
        Some(at) => put(out, if secret { 0x70 } else { 0x50 }, 4, *at),
        None => {
            put(out, if secret { 0x30 } else { 0x20 }, 3, name.len());
            out.extend_from_slice(name.as_bytes());
        }
    }
    put(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

fn put(out: &mut Vec<u8>, marks: u8, bits: u32, number: usize) {
    let mask = (1_usize << bits) - 1;
    if number < mask {
        return out.push(marks | number as u8);
    }
    out.push(marks | mask as u8);
    let mut rest = number - mask;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How much a peer counts of a field.
pub(super) fn size(name: &str, value: &[u8]) -> u64 {
    u64::try_from(name.len() + value.len() + FIELD_BYTES).unwrap_or(u64::MAX)
}

/// RFC 9204 Appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 99] = [
    (":authority", ""), (":path", "/"), ("age", "0"), ("content-disposition", ""), ("content-length", "0"), ("cookie", ""), ("date", ""),
    ("etag", ""), ("if-modified-since", ""), ("if-none-match", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("referer", ""), ("set-cookie", ""), (":method", "CONNECT"), (":method", "DELETE"), (":method", "GET"), (":method", "HEAD"),
    (":method", "OPTIONS"), (":method", "POST"), (":method", "PUT"), (":scheme", "http"), (":scheme", "https"), (":status", "103"),
    (":status", "200"), (":status", "304"), (":status", "404"), (":status", "503"), ("accept", "*/*"),
    ("accept", "application/dns-message"), ("accept-encoding", "gzip, deflate, br"), ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"), ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"), ("cache-control", "max-age=0"), ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"), ("cache-control", "no-cache"), ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"), ("content-encoding", "br"), ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"), ("content-type", "application/javascript"), ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"), ("content-type", "image/gif"), ("content-type", "image/jpeg"),
    ("content-type", "image/png"), ("content-type", "text/css"), ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"), ("content-type", "text/plain;charset=utf-8"), ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"), ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"), ("vary", "accept-encoding"), ("vary", "origin"),
    ("x-content-type-options", "nosniff"), ("x-xss-protection", "1; mode=block"), (":status", "100"), (":status", "204"),
    (":status", "206"), (":status", "302"), (":status", "400"), (":status", "403"), (":status", "421"), (":status", "425"),
    (":status", "500"), ("accept-language", ""), ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"), ("access-control-allow-headers", "*"), ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"), ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"), ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"), ("access-control-request-method", "post"), ("alt-svc", "clear"), ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"), ("early-data", "1"), ("expect-ct", ""),
    ("forwarded", ""), ("if-range", ""), ("origin", ""), ("purpose", "prefetch"), ("server", ""), ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"), ("user-agent", ""), ("x-forwarded-for", ""), ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 4096, fields_max: 8 };

    fn decoded(section: &[u8], bounds: Bounds) -> Result<Vec<(String, String)>, Undecoded> {
        let mut fields = Vec::new();
        decode(section, bounds, |name, value| {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            fields.push((text(name), text(value)));
            Ok::<_, ()>(())
        })?
        .unwrap();
        Ok(fields)
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn sections_are_read_as_the_rfc_has_them() {
        // Appendix B.1.
        let said = [&[0x00, 0x00, 0x51, 0x0b][..], b"/index.html"].concat();
        assert_eq!(decoded(&said, BOUNDS), Ok(pairs(&[(":path", "/index.html")])));
        assert_eq!(decoded(&[0, 0, 0xd1, 0xd7], BOUNDS), Ok(pairs(&[(":method", "GET"), (":scheme", "https")])));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let long = "x".repeat(1000);
        let mut section = Vec::new();
        begin(&mut section);
        status(&mut section, 200);
        status(&mut section, 418);
        field(&mut section, "content-type", b"text/html", false);
        field(&mut section, "set-cookie", b"a=b", true);
        field(&mut section, "x-a-name-that-no-table-has", long.as_bytes(), false);
        let fields = [
            (":status", "200"),
            (":status", "418"),
            ("content-type", "text/html"),
            ("set-cookie", "a=b"),
            ("x-a-name-that-no-table-has", long.as_str()),
        ];
        assert_eq!(decoded(&section, BOUNDS), Ok(pairs(&fields)));
        let size: u64 = fields.iter().map(|(name, value)| size(name, value.as_bytes())).sum();
        let tight = |bytes| Bounds { bytes_max: usize::try_from(bytes).unwrap(), fields_max: 5 };
        assert!(decoded(&section, tight(size)).is_ok());
        assert_eq!(decoded(&section, tight(size - 1)), Err(Undecoded::TooLong));
        assert_eq!(decoded(&section, Bounds { fields_max: 4, ..BOUNDS }), Err(Undecoded::TooLong));
    }

    #[test]
    fn what_is_no_section_or_needs_a_table_is_refused() {
        let endless = [&[0, 0, 0x5f][..], &[0xff; 12]].concat();
        for (case, section) in [
            ("nothing", &[][..]),
            ("half a prefix", &[0]),
            ("an insert count", &[1, 0]),
            ("a negative base", &[0, 0x80]),
            ("an index of the dynamic table", &[0, 0, 0x80]),
            ("a name of the dynamic table", &[0, 0, 0x40, 0]),
            ("an index behind the base", &[0, 0, 0x10]),
            ("a name behind the base", &[0, 0, 0x00, 0]),
            ("an index that there is not", &[0, 0, 0xff, 0x24]),
            ("a string that ends early", &[0, 0, 0x51, 0x05, b'/']),
            ("a string that is coded wrongly", &[0, 0, 0x51, 0x81, 0x18]),
            ("a number without an end", &endless),
        ] {
            assert_eq!(decoded(section, BOUNDS), Err(Undecoded::Broken), "{case}");
        }
    }
}
