//! SipHash-2-4: a keyed hash that nobody without the key can aim at. Pure.
//!
//! In: a key of 16 octets and a few octets. Out: 64 bits. Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", which
//! RFC 9018 §4.4 takes for server cookies.

/// The hash of `data` under `key`.
pub(crate) fn siphash(key: &[u8; 16], data: &[u8]) -> u64 {
    let [k0, k1] = [word(&key[..8]), word(&key[8..])];
    let mut state = State([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    let (whole, rest) = data.split_at(data.len() & !7);
    for eight in whole.chunks_exact(8) {
        state.take(word(eight));
    }
    // The last word holds what is left, and the length modulo 256 on top.
    state.take(word(rest) | (data.len() as u64) << 56);
    state.0[2] ^= 0xff;
    (0..4).for_each(|_| state.round());
    state.0.iter().fold(0, |all, v| all ^ v)
}

/// Up to eight octets, the lowest first.
fn word(octets: &[u8]) -> u64 {
    octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

struct State([u64; 4]);

impl State {
    fn take(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_function() {
        // The vectors of the paper's reference code: key 00…0f, data the first n octets of 00 01 02 …
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let data: Vec<u8> = (0..64).collect();
        for (length, want) in [
            (0, 0x726f_db47_dd0e_0e31_u64),
            (1, 0x74f8_39c5_93dc_67fd),
            (7, 0xab02_00f5_8b01_d137),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            assert_eq!(siphash(&key, &data[..length]), want, "{length} octets");
        }
    }
}
