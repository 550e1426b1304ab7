//! Huffman's code as HPACK and QPACK have it. Pure.
//!
//! In: octets of a coded string. Out: the string. The code is canonical: it follows from how long each symbol's code is, symbols of one length
//! in their order. Source: RFC 7541 Appendix B, §5.2; RFC 9204 §4.1.2.

/// How many bits the code of each octet has, and that of the end of the string, which no string holds.
#[rustfmt::skip]
const BITS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SYMBOLS: usize = 257;
const END: u16 = 256;
const BITS_MAX: usize = 30;

/// The code by the length of its words.
struct Code {
    /// The first word of each length.
    first: [u32; BITS_MAX + 1],
    /// How many there are.
    count: [u32; BITS_MAX + 1],
    /// Where their symbols begin.
    at: [usize; BITS_MAX + 1],
    symbols: [u16; SYMBOLS],
}

const CODE: Code = made();

const fn made() -> Code {
    let mut code =
        Code { first: [0; BITS_MAX + 1], count: [0; BITS_MAX + 1], at: [0; BITS_MAX + 1], symbols: [0; SYMBOLS] };
    let (mut bits, mut word, mut next) = (1, 0, 0);
    while bits <= BITS_MAX {
        word <<= 1;
        code.first[bits] = word;
        code.at[bits] = next;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if BITS[symbol] as usize == bits {
                code.symbols[next] = symbol as u16;
                code.count[bits] += 1;
                word += 1;
                next += 1;
            }
            symbol += 1;
        }
        bits += 1;
    }
    code
}

/// Appends the string that `coded` stands for; nothing where it stands for none.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    static TABLE: Code = CODE;
    let (mut word, mut bits) = (0_u32, 0_usize);
    for octet in coded {
        for shift in (0..8).rev() {
            word = word << 1 | u32::from(octet >> shift & 1);
            bits += 1;
            // Words that are too small for their length would be those of a shorter one, and were taken already.
            let nth = word.wrapping_sub(TABLE.first[bits]);
            if nth < TABLE.count[bits] {
                let symbol = TABLE.symbols[TABLE.at[bits] + nth as usize];
                if symbol == END {
                    return None;
                }
                out.push(symbol as u8);
                (word, bits) = (0, 0);
            } else if bits == BITS_MAX {
                return None;
            }
        }
    }
    // "A padding strictly longer than 7 bits MUST be treated as a decoding error", and so must one that is not all ones.
    (bits < 8 && word == (1 << bits) - 1).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> Option<String> {
        let mut out = Vec::new();
        decode(&hex::decode(hex).unwrap(), &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn strings_are_those_of_the_rfc() {
        for (coded, string) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", Some("www.example.com")),
            ("a8eb10649cbf", Some("no-cache")),
            ("25a849e95ba97d7f", Some("custom-key")),
            ("25a849e95bb8e8b4bf", Some("custom-value")),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", Some("Mon, 21 Oct 2013 20:13:21 GMT")),
            ("", Some("")),
            ("ff", None),
            ("fffffffc", None),
            ("18", None),
        ] {
            assert_eq!(decoded(coded).as_deref(), string, "{coded}");
        }
    }

    #[test]
    fn every_octet_has_one_word_and_the_code_is_whole() {
        // Kraft: no word is left over, and none stands for two.
        let filled: u64 = BITS.iter().map(|bits| 1_u64 << (BITS_MAX as u64 - u64::from(*bits))).sum();
        assert_eq!(filled, 1 << BITS_MAX);
    }
}
