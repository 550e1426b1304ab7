//! The join token as `atoll token create` prints it and an agent reads it.
//!
//! `atoll1.<cluster>.<pin>.<secret>`: the member's name, the SHA-256 of the hub's CA certificate (DER) in hexadecimal, and
//! a random word that only the hub can check. The pin lets a joining agent know the hub before it trusts anybody.

use std::fmt;
use std::str::FromStr;

use crate::names::{BadName, ClusterName};

const FORM: &str = "atoll1";
/// Shorter secrets could be guessed.
const SECRET_LEN_MIN: usize = 22;
const SECRET_LEN_MAX: usize = 128;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The one name that it is good for.
    pub cluster: ClusterName,
    /// SHA-256 of the hub's CA certificate, DER.
    pub ca_pin: [u8; 32],
    /// Letters, digits, `-` and `_`: at least 128 bits of randomness. The hub stores its hash only.
    pub secret: String,
}

/// Why a token is none. None of it is cured by a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not four parts, or not ours.
    #[error(
        "token does not have the form atoll1.CLUSTER.PIN.SECRET; paste the whole of what `atoll token create` printed"
    )]
    Form,
    /// The name is none.
    #[error("token: {0}")]
    Cluster(#[from] BadName),
    /// The pin is not 64 hexadecimal digits.
    #[error("token: the hub's pin is not 64 hexadecimal digits")]
    Pin,
    /// The secret is too short, too long or has other characters.
    #[error("token: the secret is malformed")]
    Secret,
}

impl FromStr for JoinToken {
    type Err = BadToken;

    fn from_str(s: &str) -> Result<Self, BadToken> {
        let parts: Vec<&str> = s.trim().split('.').collect();
        let [FORM, cluster, pin, secret] = parts.as_slice() else { return Err(BadToken::Form) };
        if pin.len() != 64 || !pin.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadToken::Pin);
        }
        let mut ca_pin = [0; 32];
        for (byte, at) in ca_pin.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&pin[at..at + 2], 16).map_err(|_| BadToken::Pin)?;
        }
        let plain = secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !plain || !(SECRET_LEN_MIN..=SECRET_LEN_MAX).contains(&secret.len()) {
            return Err(BadToken::Secret);
        }
        Ok(Self { cluster: cluster.parse()?, ca_pin, secret: (*secret).to_owned() })
    }
}

/// The whole token, secret included: for the one line that people paste.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}.{}.", self.cluster)?;
        for byte in self.ca_pin {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ".{}", self.secret)
    }
}

/// Without the secret: for logs.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, …)", self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written_and_never_shows_its_secret_in_logs() {
        let token = JoinToken { cluster: "prod-eu".parse().unwrap(), ca_pin: [0xa7; 32], secret: "s".repeat(32) };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("sss"));
    }

    #[test]
    fn what_is_no_token_says_which_part_is_wrong() {
        let (pin, secret) = ("0a".repeat(32), "x".repeat(22));
        for (token, want) in [
            (String::new(), BadToken::Form),
            (format!("atoll2.dev.{pin}.{secret}"), BadToken::Form),
            (format!("atoll1.dev.{pin}"), BadToken::Form),
            (format!("atoll1.dev.{pin}.{secret}.x"), BadToken::Form),
            (format!("atoll1.dev.{}zz.{secret}", &pin[2..]), BadToken::Pin),
            (format!("atoll1.dev.{}.{secret}", &pin[2..]), BadToken::Pin),
            (format!("atoll1.dev.{pin}.{}", &secret[1..]), BadToken::Secret),
            (format!("atoll1.dev.{pin}.{secret}!"), BadToken::Secret),
            (format!("atoll1.svc.{pin}.{secret}"), BadToken::Cluster(BadName::Reserved("svc".into()))),
        ] {
            assert_eq!(token.parse::<JoinToken>(), Err(want), "{token}");
        }
    }
}
