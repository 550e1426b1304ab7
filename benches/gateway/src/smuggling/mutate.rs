//! Inputs near the written cases: a few small changes each, by chance that is the same for the same seed.

/// Numbers by chance (SplitMix64).
pub(super) struct Chance(u64);

impl Chance {
    /// The chance of one input.
    pub(super) fn new(seed: u64, at: usize) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at as u64).wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`; 0 where that is 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Octets at which parsers part.
const OCTETS: &[u8] = b"\r\n\0\t :;,=\"/?#@\\%0159aAfFxX+-_.\x0b\x0c\x7f\x80\xa0\xff";

/// Words of heads and bodies.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    "\r\n ",
    "\r\n\t",
    " ",
    "0\r\n\r\n",
    "3\r\nabc\r\n",
    "chunked",
    "identity",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length:",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:",
    "Transfer-Encoding : chunked\r\n",
    "transfer-encoding: x\r\n",
    "Host: b\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    " HTTP/1.1",
    "HTTP/1.0",
    "GET ",
    "POST ",
    "http://b/",
    ";a=b",
    ";",
    "X: y\r\n",
    "1\r\nZ\r\n",
    "0",
];

/// Octets near one of `bases`.
pub(super) fn mutate(bases: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut out = bases[chance.below(bases.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(out.len() + 1);
        match chance.below(8) {
            0 if at < out.len() => out[at] = OCTETS[chance.below(OCTETS.len())],
            1 => out.insert(at, OCTETS[chance.below(OCTETS.len())]),
            2 if at < out.len() => {
                out.remove(at);
            }
            3 => drop(out.splice(at..at, chance.of(WORDS).bytes())),
            4 => {
                let len = chance.below(24).min(out.len() - at);
                let part = out[at..at + len].to_vec();
                let to = chance.below(out.len() + 1);
                out.splice(to..to, part);
            }
            5 => {
                let len = chance.below(12).min(out.len() - at);
                out.drain(at..at + len);
            }
            6 => {
                let other = &bases[chance.below(bases.len())];
                out.truncate(at);
                out.extend_from_slice(&other[chance.below(other.len() + 1)..]);
            }
            7 if at < out.len() => out[at] ^= 0x20,
            _ => {}
        }
    }
    out.truncate(8192);
    out
}
