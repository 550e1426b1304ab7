//! Signed tokens and the keys that they are checked with. Sources: RFC 7515 (JWS), RFC 7517 (JWK), RFC 7518 (algorithms), RFC 7519 (claims).
//!
//! In: a set of keys, a token, the time. Out: its claims, or why it does not count. The key decides what algorithms may have signed, never the
//! token alone: `none` is no algorithm, and a public key is never taken for a secret.

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// A token is at most this long.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Keys of one set.
const KEYS_MAX: usize = 64;

/// A set of keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it may be used with, where it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(Vec<u8>, Vec<u8>),
    /// Curve and point.
    Curve(String, Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Box<hmac::Key>, &'static str),
}

/// Who must have issued a token, for whom, and how far clocks are apart.
#[derive(Debug)]
pub(crate) struct Expect {
    pub(crate) issuer: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) skew: Duration,
}

impl Keys {
    /// Reads a set; keys that are not known, or not for signatures, are left out. `secrets`: shared secrets count, too.
    ///
    /// # Errors
    /// It is no set, or none of its keys can be used.
    pub(crate) fn parse(text: &str, secrets: bool) -> Result<Self, String> {
        let set: Value = serde_json::from_str(text).map_err(|e| format!("it is no JWK set: {e}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("it is no JWK set: it has no `keys`")?;
        let found: Vec<Key> = keys.iter().take(KEYS_MAX).filter_map(|key| Key::parse(key, secrets)).collect();
        if found.is_empty() { Err("none of its keys can be used".to_owned()) } else { Ok(Self(found)) }
    }

    /// The claims of a token. `now` in seconds since 1970.
    ///
    /// # Errors
    /// Why it does not count.
    pub(crate) fn claims(&self, token: &str, expect: &Expect, now: i64) -> Result<Value, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Bad("it is too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Bad("it is none"))?;
        let (head, body) = signed.split_once('.').ok_or(Refused::Bad("it is none"))?;
        let (head, signature) = (object(head)?, decode(signature)?);
        if head.get("crit").is_some() {
            return Err(Refused::Bad("it wants to be understood in a way that is not known"));
        }
        let algorithm = head.get("alg").and_then(Value::as_str).ok_or(Refused::Bad("it names no algorithm"))?;
        let id = head.get("kid").and_then(Value::as_str);
        let fits = |key: &&Key| (id.is_none() || key.id.is_none() || key.id.as_deref() == id) && key.may(algorithm);
        let mut fitting = self.0.iter().filter(fits).peekable();
        if fitting.peek().is_none() {
            return Err(Refused::UnknownKey);
        }
        if !fitting.any(|key| key.verifies(algorithm, signed.as_bytes(), &signature)) {
            return Err(Refused::Bad("its signature is none"));
        }
        let claims = object(body)?;
        expect.check(&claims, now).map_err(Refused::Bad)?;
        Ok(claims)
    }
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Bad(&'static str),
    /// None of the keys is the one that it names: there may be newer ones.
    UnknownKey,
}

fn decode(text: &str) -> Result<Vec<u8>, Refused> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Bad("it is none"))
}

fn object(text: &str) -> Result<Value, Refused> {
    let value: Value = serde_json::from_slice(&decode(text)?).map_err(|_| Refused::Bad("it is none"))?;
    if value.is_object() { Ok(value) } else { Err(Refused::Bad("it is none")) }
}

impl Key {
    fn parse(written: &Value, secrets: bool) -> Option<Self> {
        let text = |name: &str| written.get(name).and_then(Value::as_str);
        let octets = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|used| used != "sig") {
            return None;
        }
        let algorithm = text("alg").map(str::to_owned);
        let material = match text("kty")? {
            "RSA" => Material::Rsa(octets("n")?, octets("e")?),
            "EC" => {
                // An uncompressed point (SEC 1, 2.3.3).
                let point = [&[4][..], &octets("x")?, &octets("y")?].concat();
                Material::Curve(text("crv")?.to_owned(), point)
            }
            "OKP" if text("crv") == Some("Ed25519") => Material::Ed25519(octets("x")?),
            "oct" if secrets => {
                let (kind, name) = match algorithm.as_deref() {
                    None | Some("HS256") => (hmac::HMAC_SHA256, "HS256"),
                    Some("HS384") => (hmac::HMAC_SHA384, "HS384"),
                    Some("HS512") => (hmac::HMAC_SHA512, "HS512"),
                    Some(_) => return None,
                };
                let secret = octets("k").filter(|secret| secret.len() >= 16)?;
                Material::Secret(Box::new(hmac::Key::new(kind, &secret)), name)
            }
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm, material })
    }

    /// Whether a token of that algorithm can have been signed with it.
    fn may(&self, algorithm: &str) -> bool {
        let of_kind = match &self.material {
            Material::Rsa(..) => ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].contains(&algorithm),
            Material::Curve(curve, _) => {
                [("P-256", "ES256"), ("P-384", "ES384"), ("P-521", "ES512")].contains(&(curve.as_str(), algorithm))
            }
            Material::Ed25519(_) => algorithm == "EdDSA" || algorithm == "Ed25519",
            Material::Secret(_, own) => algorithm == *own,
        };
        of_kind && self.algorithm.as_deref().is_none_or(|own| own == algorithm)
    }

    fn verifies(&self, algorithm: &str, signed: &[u8], mark: &[u8]) -> bool {
        match &self.material {
            Material::Rsa(n, e) => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    _ => &signature::RSA_PSS_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, mark).is_ok()
            }
            Material::Curve(curve, point) => {
                let kind = match curve.as_str() {
                    "P-256" => &signature::ECDSA_P256_SHA256_FIXED,
                    "P-384" => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => &signature::ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(kind, point).verify(signed, mark).is_ok()
            }
            Material::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(signed, mark).is_ok(),
            Material::Secret(key, _) => hmac::verify(key, signed, mark).is_ok(),
        }
    }
}

impl Expect {
    fn check(&self, claims: &Value, now: i64) -> Result<(), &'static str> {
        let skew = i64::try_from(self.skew.as_secs()).unwrap_or(i64::MAX);
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(|t| Some(t as i64)).ok_or("one of its times is none"),
        };
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("it is of another issuer");
        }
        let one_of = |name: &Value| name.as_str().is_some_and(|name| self.audiences.iter().any(|a| a == name));
        let meant = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(one_of),
            Some(one) => one_of(one),
            None => false,
        };
        if !self.audiences.is_empty() && !meant {
            return Err("it is for somebody else");
        }
        if time("exp")?.ok_or("it has no end")?.saturating_add(skew) <= now {
            return Err("its time is over");
        }
        if time("nbf")?.is_some_and(|begin| begin.saturating_sub(skew) > now) {
            return Err("its time has not begun");
        }
        Ok(())
    }
}

/// A claim; dots lead into objects. Lists are joined by commas.
pub(crate) fn claim(claims: &Value, path: &str) -> Option<String> {
    let found = claims.get(path).or_else(|| path.split('.').try_fold(claims, |at, name| at.get(name)))?;
    match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(all) => Some(all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    /// A key of P-256 and the set that publishes it.
    pub(crate) fn key(id: &str) -> (EcdsaKeyPair, Value) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let code = |octets: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(octets);
        let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": id, "x": code(&point[1..33]), "y": code(&point[33..])}]});
        (pair, set)
    }

    /// A token.
    pub(crate) fn token(pair: &EcdsaKeyPair, head: &Value, claims: &Value) -> String {
        let code = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", code(head), code(claims));
        let mark = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mark.as_ref()))
    }

    #[test]
    fn a_token_counts_only_signed_in_time_and_for_us() {
        let (pair, set) = key("k1");
        let (other, _) = key("k1");
        let keys = Keys::parse(&set.to_string(), false).unwrap();
        let expect =
            Expect { issuer: "me".to_owned(), audiences: vec!["shop".to_owned()], skew: Duration::from_secs(10) };
        let head = json!({"alg": "ES256", "kid": "k1"});
        let good = json!({"iss": "me", "aud": ["x", "shop"], "exp": 1000, "nbf": 500, "sub": "anna"});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            token(&pair, &head, &claims)
        };
        let bad = |why| Err(Refused::Bad(why));
        for (name, token, now, expected) in [
            ("good", token(&pair, &head, &good), 900, Ok("anna")),
            ("just over, within the skew", token(&pair, &head, &good), 1005, Ok("anna")),
            ("over", token(&pair, &head, &good), 1010, bad("its time is over")),
            ("not begun", token(&pair, &head, &good), 480, bad("its time has not begun")),
            ("no end", with("exp", Value::Null), 900, bad("one of its times is none")),
            ("another issuer", with("iss", json!("you")), 900, bad("it is of another issuer")),
            ("another audience", with("aud", json!("bar")), 900, bad("it is for somebody else")),
            ("no audience", with("aud", Value::Null), 900, bad("it is for somebody else")),
            ("another's key", token(&other, &head, &good), 900, bad("its signature is none")),
            (
                "a key that is gone",
                token(&pair, &json!({"alg": "ES256", "kid": "k2"}), &good),
                900,
                Err(Refused::UnknownKey),
            ),
            ("no algorithm", token(&pair, &json!({"alg": "none", "kid": "k1"}), &good), 900, Err(Refused::UnknownKey)),
            (
                "a secret of a public key",
                token(&pair, &json!({"alg": "HS256", "kid": "k1"}), &good),
                900,
                Err(Refused::UnknownKey),
            ),
            (
                "critical",
                token(&pair, &json!({"alg": "ES256", "crit": ["b64"]}), &good),
                900,
                bad("it wants to be understood in a way that is not known"),
            ),
            ("garbage", "a.b.c".to_owned(), 900, bad("it is none")),
            ("nothing", String::new(), 900, bad("it is none")),
        ] {
            let found = keys.claims(&token, &expect, now);
            assert_eq!(found.as_ref().map(|c| c["sub"].as_str().unwrap()).map_err(|r| *r), expected, "{name}");
        }
    }

    /// RFC 7515, appendix A.1: a token of HS256 and its key.
    #[test]
    fn shared_secrets_count_only_where_they_may() {
        let set = json!({"keys": [{"kty": "oct", "alg": "HS256",
            "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]});
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let expect = Expect { issuer: "joe".to_owned(), audiences: Vec::new(), skew: Duration::ZERO };
        let keys = Keys::parse(&set.to_string(), true).unwrap();
        assert!(keys.claims(token, &expect, 1_300_819_379).is_ok());
        assert!(Keys::parse(&set.to_string(), false).is_err(), "what is published is no secret");
    }

    #[test]
    fn claims_are_found_by_their_paths() {
        let claims = json!({"sub": "a", "n": 5, "realm": {"roles": ["x", "y"]}, "a.b": "dotted", "o": {}});
        for (path, found) in [
            ("sub", Some("a")),
            ("n", Some("5")),
            ("realm.roles", Some("x,y")),
            ("a.b", Some("dotted")),
            ("o", None),
            ("none.x", None),
        ] {
            assert_eq!(claim(&claims, path).as_deref(), found, "{path}");
        }
    }
}
