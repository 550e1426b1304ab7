//! Who came, kept in cookies of the client that nobody else can read or change: AES-256-GCM, the key out of a Secret, bound to what they are for.
//! What is longer than one cookie may be stands in several. Pure but for the nonce.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::http::cookie;

/// Browsers keep cookies of 4096 octets, name and attributes included (RFC 6265 §6.1).
const PIECE_BYTES_MAX: usize = 3600;
const PIECES_MAX: usize = 8;
/// A key is made of at least so much.
const SECRET_BYTES_MIN: usize = 32;

/// Somebody who logged in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) user: String,
    /// What the backend is told, in the order of `claimHeaders`.
    pub(crate) told: Vec<Option<String>>,
    /// When it is asked for anew, in seconds since 1970.
    pub(crate) until: i64,
    /// When it ends whatever happens.
    pub(crate) end: i64,
    pub(crate) refresh: Option<String>,
}

/// Somebody who was sent to log in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) state: String,
    pub(crate) nonce: String,
    pub(crate) verifier: String,
    /// The path and query that was asked for.
    pub(crate) to: String,
    pub(crate) end: i64,
}

/// What closes and opens cookies.
pub(crate) struct Seal {
    key: RandomizedNonceKey,
    /// Whose cookies they are.
    whose: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// # Errors
    /// The secret is too short.
    pub(crate) fn new(secret: &[u8], whose: &str) -> Result<Self, String> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(format!("at least {SECRET_BYTES_MIN} octets"));
        }
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"atoll oidc cookies 1");
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| "no key can be made of it")?;
        Ok(Self { key, whose: whose.to_owned() })
    }

    /// `name`: of the cookie, which is bound to it.
    pub(crate) fn close(&self, name: &str, what: &impl Serialize) -> Option<String> {
        let mut octets = serde_json::to_vec(what).ok()?;
        let aad = Aad::from(format!("{name}\0{}", self.whose));
        let nonce = self.key.seal_in_place_append_tag(aad, &mut octets).ok()?;
        Some(BASE64_URL_SAFE_NO_PAD.encode([&nonce.as_ref()[..], &octets].concat()))
    }

    pub(crate) fn open<T: DeserializeOwned>(&self, name: &str, text: &str) -> Option<T> {
        let mut octets = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, closed) = octets.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let aad = Aad::from(format!("{name}\0{}", self.whose));
        let plain = self.key.open_in_place(nonce, aad, closed).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

/// The name of a piece.
pub(crate) fn piece(name: &str, nth: usize) -> String {
    if nth == 0 { name.to_owned() } else { format!("{name}-{nth}") }
}

/// A value in pieces, each with its name; nothing where it is too long. The first begins with how many there are.
pub(crate) fn pieces(name: &str, value: &str) -> Option<Vec<(String, String)>> {
    let count = value.len().div_ceil(PIECE_BYTES_MAX).max(1);
    if count > PIECES_MAX {
        return None;
    }
    let part = |nth: usize| &value[nth * PIECE_BYTES_MAX..value.len().min((nth + 1) * PIECE_BYTES_MAX)];
    let each = (0..count).map(|nth| {
        let text = if nth == 0 { format!("{count}.{}", part(0)) } else { part(nth).to_owned() };
        (piece(name, nth), text)
    });
    Some(each.collect())
}

/// A value that came in pieces.
pub(crate) fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let (count, first) = cookie::find(headers, name)?.split_once('.')?;
    let count: usize = count.parse().ok().filter(|count| (1..=PIECES_MAX).contains(count))?;
    let mut all = first.to_owned();
    for nth in 1..count {
        all.push_str(cookie::find(headers, &piece(name, nth))?);
    }
    Some(all)
}

/// Names under which pieces may stand in a request.
pub(crate) fn names(name: &str) -> impl Iterator<Item = String> {
    (0..PIECES_MAX).map(move |nth| piece(name, nth))
}

/// Text that nobody can guess, of 256 bits.
pub(crate) fn chance() -> Option<String> {
    let mut octets = [0; 32];
    aws_lc_rs::rand::fill(&mut octets).ok()?;
    Some(BASE64_URL_SAFE_NO_PAD.encode(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_by_whoever_closed_it_and_only_as_what_it_is() {
        let session =
            Session { user: "anna".into(), told: vec![None, Some("x".into())], until: 1, end: 2, refresh: None };
        let seal = |secret: &[u8], whose: &str| Seal::new(secret, whose).unwrap();
        let ours = seal(&[7; 32], "a");
        let closed = ours.close("s", &session).unwrap();
        assert_ne!(closed, ours.close("s", &session).unwrap(), "no two are the same");
        assert_eq!(ours.open::<Session>("s", &closed), Some(session));
        assert_eq!(ours.open::<Session>("t", &closed), None, "another cookie");
        assert_eq!(seal(&[7; 32], "b").open::<Session>("s", &closed), None, "another's");
        assert_eq!(seal(&[8; 32], "a").open::<Session>("s", &closed), None, "another key");
        for cut in 0..closed.len() {
            assert_eq!(ours.open::<Session>("s", &closed[..cut]), None, "{cut}");
        }
        assert!(Seal::new(&[7; 31], "a").is_err());
    }

    #[test]
    fn what_is_too_long_for_one_cookie_stands_in_several() {
        for (length, count) in [(0, Some(1)), (3600, Some(1)), (3601, Some(2)), (28_800, Some(8)), (28_801, None)] {
            let value = "v".repeat(length);
            let pieces = pieces("s", &value);
            assert_eq!(pieces.as_ref().map(Vec::len), count, "{length}");
            let Some(pieces) = pieces else { continue };
            let mut headers = HeaderMap::new();
            let line = pieces.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("; ");
            headers.insert("cookie", line.parse().unwrap());
            assert_eq!(joined(&headers, "s"), Some(value), "{length}");
            assert!(pieces.iter().all(|(n, v)| n.len() + v.len() < 3700));
        }
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "s=2.a".parse().unwrap());
        assert_eq!(joined(&headers, "s"), None, "a piece is missing");
    }
}
