//! Whether a server gives back the letters of a question as they were sent: where it does, they are one more thing that a forger has to
//! guess ("0x20": draft-vixie-dnsext-dns0x20-00 §2, RFC 5452 §9.3 on more entropy).
//!
//! In: whether replies by UDP repeated the question to the letter, the time. Out: how the next question is spelled and what is asked of
//! its reply. Found out for each server by what it does: one that changes letters is left in peace for a while.

use std::time::Duration;

use tokio::time::Instant;

/// Replies in a row to the letter after which others are none.
const EXACT_MIN: u8 = 3;
/// Replies in a row that are not, after which the server is one that changes letters.
const STRANGE_MAX: u8 = 3;
/// So long it is asked in lower case then.
const PLAIN_FOR: Duration = Duration::from_secs(600);

/// What is known of a server.
#[derive(Debug, Clone, Default)]
pub(super) struct Case {
    exact: u8,
    strange: u8,
    plain_until: Option<Instant>,
}

/// How a question is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As it is.
    Plain,
    /// With letters by chance; a reply may spell them as it likes.
    Mixed,
    /// The same, and its reply must repeat them.
    Strict,
}

impl Case {
    /// How the next question is spelled.
    pub(super) fn spelling(&self, now: Instant) -> Spelling {
        match self.plain_until {
            Some(until) if now < until => Spelling::Plain,
            _ if self.exact >= EXACT_MIN => Spelling::Strict,
            _ => Spelling::Mixed,
        }
    }

    /// A reply to a question of mixed letters came. Returns whether the server counts as another kind now.
    pub(super) fn note(&mut self, exact: bool, now: Instant) -> bool {
        if exact {
            self.strange = 0;
            self.exact = self.exact.saturating_add(1);
            return self.exact == EXACT_MIN;
        }
        self.strange += 1;
        // Who was never seen to repeat them changes them; who always did may be forged, and so has more chances.
        let changes = self.exact < EXACT_MIN || self.strange >= STRANGE_MAX;
        if changes {
            *self = Self { plain_until: Some(now + PLAIN_FOR), ..Self::default() };
        }
        changes
    }
}

/// Puts the letters of a name of the wire into upper and lower case by chance.
pub(super) fn mix(name: &mut [u8], mut dice: u64) {
    for octet in name.iter_mut().filter(|octet| octet.is_ascii_alphabetic()) {
        // Length octets are no letters. Names of more than 64 letters repeat the dice.
        *octet ^= (dice as u8 & 1) << 5;
        dice = dice.rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_what_it_does_with_letters() {
        let start = Instant::now();
        let mut case = Case::default();
        assert_eq!(case.spelling(start), Spelling::Mixed);
        assert_eq!([true; 3].map(|exact| case.note(exact, start)), [false, false, true]);
        assert_eq!(case.spelling(start), Spelling::Strict);
        // Two forgeries change nothing; a server that was replaced by one that changes letters is found out.
        for exact in [false, false, true, false, false] {
            assert!(!case.note(exact, start));
        }
        assert_eq!(case.spelling(start), Spelling::Strict);
        assert!(case.note(false, start));
        assert_eq!(case.spelling(start), Spelling::Plain);
        assert_eq!(case.spelling(start + PLAIN_FOR), Spelling::Mixed, "looked at again");
        let mut lower = Case::default();
        assert!(lower.note(false, start));
        assert_eq!(lower.spelling(start), Spelling::Plain);
    }

    #[test]
    fn letters_are_mixed_and_nothing_else_is() {
        let plain = b"\x03web\x07exa-m1e\x00";
        let mut name = *plain;
        mix(&mut name, 0b101_0101);
        assert_eq!(&name, b"\x03WeB\x07eXa-M1e\x00");
        assert!(name.eq_ignore_ascii_case(plain));
        let spellings: std::collections::HashSet<Vec<u8>> = (0..256_u64)
            .map(|dice| {
                let mut name = *plain;
                mix(&mut name, dice);
                name.to_vec()
            })
            .collect();
        assert_eq!(spellings.len(), 256, "eight letters, eight bits");
    }
}
