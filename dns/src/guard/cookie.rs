//! DNS cookies: who shows one that we gave really has the address that it asks from (RFC 7873). Pure.
//!
//! In: the secrets, the client's address, the option as it came, the wall clock. Out: what the option is worth, and the one to give back.
//! The server's part is that of RFC 9018, so that servers of any make behind one address understand each other's when they share the
//! secret. Never allocates.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// A client's part (RFC 7873 §4.1).
pub(crate) const CLIENT_BYTES: usize = 8;
/// Both parts, as we give them.
pub(crate) const COOKIE_BYTES: usize = 24;
/// The longest there may be: a server's part has 8 to 32 octets (RFC 7873 §4.2).
const COOKIE_BYTES_MAX: usize = 40;
/// RFC 9018 §4.1.
const VERSION: u8 = 1;
/// RFC 9018 §4.3: "The DNS server SHOULD allow cookies within a 1-hour period in the past and a 5-minute period into the future".
const AGE_MAX: i32 = 3600;
const AHEAD_MAX: i32 = 300;

/// What a key is for the hash.
pub type Secret = [u8; 16];

/// The secret that cookies are made with, and the one before, which still counts (RFC 7873 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secrets {
    /// Made with.
    pub current: Secret,
    /// Accepted too.
    pub previous: Option<Secret>,
}

/// What a query's option is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cookie {
    /// None was sent.
    Absent,
    /// Of a length that there is not (RFC 7873 §5.2.2: FORMERR).
    Malformed,
    /// The client's part alone, or with a server's part that is not ours or not of now.
    Unproven([u8; CLIENT_BYTES]),
    /// The address is the client's own.
    Valid([u8; CLIENT_BYTES]),
}

impl Cookie {
    /// The client's part, to which an answer's cookie belongs.
    pub(crate) fn client(self) -> Option<[u8; CLIENT_BYTES]> {
        match self {
            Self::Unproven(client) | Self::Valid(client) => Some(client),
            Self::Absent | Self::Malformed => None,
        }
    }
}

impl Secrets {
    /// With a new secret in front.
    pub(crate) fn rolled(self, next: Secret) -> Self {
        Self { current: next, previous: Some(self.current) }
    }

    /// What `option` is worth from `ip` at `unix` seconds.
    pub(crate) fn check(&self, unix: u32, ip: IpAddr, option: Option<&[u8]>) -> Cookie {
        let Some(option) = option else { return Cookie::Absent };
        let Some((client, server)) = option.split_first_chunk::<CLIENT_BYTES>() else { return Cookie::Malformed };
        match server.len() {
            0 => Cookie::Unproven(*client),
            1..8 => Cookie::Malformed,
            _ if option.len() > COOKIE_BYTES_MAX => Cookie::Malformed,
            _ if self.is_ours(unix, ip, option) => Cookie::Valid(*client),
            _ => Cookie::Unproven(*client),
        }
    }

    fn is_ours(&self, unix: u32, ip: IpAddr, option: &[u8]) -> bool {
        let Ok(option) = <&[u8; COOKIE_BYTES]>::try_from(option) else { return false };
        let made = u32::from_be_bytes([option[12], option[13], option[14], option[15]]);
        // RFC 1982: the difference counts, over the end of the number.
        let age = unix.wrapping_sub(made).cast_signed();
        let by = |secret: &Secret| hash(secret, &option[..16], ip) == option[16..];
        option[CLIENT_BYTES] == VERSION
            && (-AHEAD_MAX..=AGE_MAX).contains(&age)
            && (by(&self.current) || self.previous.as_ref().is_some_and(by))
    }

    /// The cookie for a client at `ip`.
    pub(crate) fn make(&self, unix: u32, ip: IpAddr, client: [u8; CLIENT_BYTES]) -> [u8; COOKIE_BYTES] {
        let mut cookie = [0; COOKIE_BYTES];
        cookie[..CLIENT_BYTES].copy_from_slice(&client);
        cookie[CLIENT_BYTES] = VERSION;
        cookie[12..16].copy_from_slice(&unix.to_be_bytes());
        let hash = hash(&self.current, &cookie[..16], ip);
        cookie[16..].copy_from_slice(&hash);
        cookie
    }
}

/// RFC 9018 §4.4: over client cookie, version, reserved, timestamp, client address.
fn hash(secret: &Secret, head: &[u8], ip: IpAddr) -> [u8; 8] {
    let mut data = [0; 32];
    data[..16].copy_from_slice(head);
    let length = match ip.to_canonical() {
        IpAddr::V4(v4) => {
            data[16..20].copy_from_slice(&v4.octets());
            20
        }
        IpAddr::V6(v6) => {
            data[16..].copy_from_slice(&v6.octets());
            32
        }
    };
    SipHasher24::new_with_key(secret).hash(&data[..length]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn secrets(current: &str, previous: Option<&str>) -> Secrets {
        let secret = |hex: &str| octets(hex).try_into().unwrap();
        Secrets { current: secret(current), previous: previous.map(secret) }
    }

    const FIRST: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

    #[test]
    fn cookies_are_those_of_rfc_9018() {
        // Appendix A: learning, renewing, another server's with reserved octets (when it was made), a rolled secret over IPv6.
        for (ours, ip, checked, sent, made, given) in [
            (FIRST, "198.51.100.100", 0, "2464c4abcf10c957", 1_559_731_985, "010000005cf79f111f8130c3eee29480"),
            (
                FIRST,
                "198.51.100.100",
                1_559_734_385,
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
                1_559_734_385,
                "010000005cf7a871d4a564a1442aca77",
            ),
            (
                FIRST,
                "203.0.113.203",
                1_559_727_985,
                "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
                1_559_734_700,
                "010000005cf7a9acf73a7810aca2381e",
            ),
            (
                "445536bcd2513298075a5d379663c962",
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_961,
                "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
                1_559_741_961,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ] {
            let ours = secrets(ours, Some("dd3bdf9344b678b185a6f5cb60fca715"));
            let (ip, sent) = (ip.parse().unwrap(), octets(sent));
            let worth = ours.check(checked, ip, Some(&sent));
            assert_eq!(matches!(worth, Cookie::Valid(_)), sent.len() > CLIENT_BYTES, "{ip}");
            let cookie = ours.make(made, ip, worth.client().unwrap());
            assert_eq!((&cookie[..8], &cookie[8..]), (&sent[..8], &octets(given)[..]), "{ip}");
        }
    }

    #[test]
    fn a_cookie_proves_an_address_for_an_hour_and_no_other_address() {
        let (ours, ip) = (secrets(FIRST, None), "192.0.2.1".parse().unwrap());
        let (client, made) = ([7; CLIENT_BYTES], 4_294_967_000);
        let cookie = ours.make(made, ip, client);
        for (case, after, from, secrets, valid) in [
            ("at once", 0, "192.0.2.1", ours, true),
            ("over the end of the number", 3600, "192.0.2.1", ours, true),
            ("a mapped address is the same", 0, "::ffff:192.0.2.1", ours, true),
            ("too old", 3601, "192.0.2.1", ours, false),
            ("from the future", -301, "192.0.2.1", ours, false),
            ("somebody else's", 0, "192.0.2.2", ours, false),
            ("rolled once", 60, "192.0.2.1", ours.rolled([1; 16]), true),
            ("rolled twice", 60, "192.0.2.1", ours.rolled([1; 16]).rolled([2; 16]), false),
        ] {
            let got = secrets.check(made.wrapping_add_signed(after), from.parse().unwrap(), Some(&cookie));
            assert_eq!(got, if valid { Cookie::Valid(client) } else { Cookie::Unproven(client) }, "{case}");
        }
    }

    #[test]
    fn lengths_that_there_are_not_are_malformed() {
        let (ours, ip) = (secrets(FIRST, None), "192.0.2.1".parse().unwrap());
        for length in 0..64 {
            let got = ours.check(9, ip, Some(&vec![1; length]));
            let want = matches!(length, 8 | 16..=40);
            assert_eq!(got != Cookie::Malformed, want, "{length}: {got:?}");
        }
        assert_eq!(ours.check(9, ip, None), Cookie::Absent);
    }
}
