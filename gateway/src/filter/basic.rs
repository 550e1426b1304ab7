//! `basic`: user and password (RFC 7617), checked against what htpasswd writes: bcrypt, apr1 (MD5), SHA; or one user of a Secret of type
//! kubernetes.io/basic-auth. A password that was found to be right is remembered by its hash for a while, for bcrypt is slow on purpose.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Basic;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use md5::{Digest as _, Md5};
use moka::sync::Cache;
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, header_name, parameters, said};
use crate::policy::Asked;

const REMEMBERED_MAX: u64 = 4096;
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// How a password is kept.
#[derive(Debug, Clone)]
enum Kept {
    Plain(String),
    Bcrypt(String),
    /// Salt and digest.
    Apr1(String, String),
    Sha(Vec<u8>),
}

impl Kept {
    fn parse(written: &str) -> Result<Self, &'static str> {
        if let Some(rest) = written.strip_prefix("$apr1$") {
            let (salt, digest) = rest.split_once('$').ok_or("its apr1 hash is none")?;
            return Ok(Self::Apr1(salt.to_owned(), digest.to_owned()));
        }
        if let Some(hash) = written.strip_prefix("{SHA}") {
            return BASE64_STANDARD.decode(hash).map(Self::Sha).map_err(|_| "its SHA hash is none");
        }
        if ["$2y$", "$2a$", "$2b$"].iter().any(|kind| written.starts_with(kind)) {
            return written
                .parse::<bcrypt::HashParts>()
                .map(|_| Self::Bcrypt(written.to_owned()))
                .map_err(|_| "its bcrypt hash is none");
        }
        Err("it is hashed in a way that is not known: bcrypt, apr1 and SHA are")
    }

    fn holds(&self, password: &[u8]) -> bool {
        match self {
            Self::Plain(plain) => same(plain.as_bytes(), password),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Apr1(salt, digest) => same(digest.as_bytes(), apr1(password, salt.as_bytes()).as_bytes()),
            Self::Sha(hash) => same(hash, digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password).as_ref()),
        }
    }
}

fn same(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

/// Apache's own way of hashing with MD5: a thousand rounds, and base 64 of its own alphabet.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for at in 0..password.len() {
        first.update([inner[at % 16]]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut last = first.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        next.update(if round % 2 == 1 { password } else { &last[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round % 2 == 1 { &last[..] } else { password });
        last = next.finalize();
    }
    let mut out = String::with_capacity(22);
    let mut put = |a: u8, b: u8, c: u8, count: usize| {
        let mut value = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        for _ in 0..count {
            out.push(char::from(ALPHABET[value & 63]));
            value >>= 6;
        }
    };
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        put(last[a], last[b], last[c], 4);
    }
    put(0, 0, last[11], 2);
    out
}

struct Users {
    users: HashMap<String, Kept>,
    challenge: HeaderValue,
    header: Option<HeaderName>,
    /// Hashes of what was found to be right.
    right: Cache<[u8; 32], ()>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Who it is.
    async fn user(&self, head: &http::request::Parts) -> Option<String> {
        let said = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, coded) = said.split_once(' ')?;
        let decoded = BASE64_STANDARD.decode(coded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let colon = decoded.iter().position(|b| *b == b':')?;
        let user = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
        let kept = self.users.get(&user)?.clone();
        let hash: [u8; 32] = digest::digest(&digest::SHA256, &decoded).as_ref().try_into().ok()?;
        if self.right.contains_key(&hash) {
            return Some(user);
        }
        let password = decoded[colon + 1..].to_vec();
        let holds = match kept {
            Kept::Bcrypt(_) => tokio::task::spawn_blocking(move || kept.holds(&password)).await.ok()?,
            quick => quick.holds(&password),
        };
        if holds {
            self.right.insert(hash, ());
        }
        holds.then_some(user)
    }
}

#[async_trait]
impl Guard for Users {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        let Some(user) = self.user(asked.head).await else {
            let mut answer = said(StatusCode::UNAUTHORIZED, "user and password are needed");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, self.challenge.clone());
            return Some(answer);
        };
        // The backend has no use for the password.
        asked.head.headers.remove(header::AUTHORIZATION);
        if let (Some(name), Ok(value)) = (&self.header, HeaderValue::from_str(&user)) {
            asked.head.headers.insert(name, value);
        }
        asked.user = Some(user);
        None
    }
}

pub(super) fn make(written: &Map<String, Value>, making: &Making<'_>) -> Guarded {
    let settings: Basic = parameters(written)?;
    let data = making.secret(settings.secret_ref.as_ref())?;
    let realm = settings.realm.as_deref().unwrap_or("atoll").replace(['"', '\\'], "");
    let challenge = HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
    Ok(Arc::new(Users {
        users: users(&data)?,
        challenge: challenge.map_err(|_| format!("realm: `{realm}` is none"))?,
        header: settings.user_header.as_deref().map(|h| header_name("userHeader", h)).transpose()?,
        right: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_FOR).build(),
    }))
}

fn users(data: &std::collections::BTreeMap<String, Vec<u8>>) -> Result<HashMap<String, Kept>, String> {
    let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Ok(HashMap::from([(user.trim().to_owned(), Kept::Plain(password.trim_end().to_owned()))]));
    }
    let file = text("auth").ok_or("secretRef: it has neither `auth` nor `username` and `password`")?;
    let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let each = lines.map(|line| {
        let (user, hash) = line.split_once(':').ok_or("secretRef: a line of `auth` has no colon")?;
        let kept = Kept::parse(hash).map_err(|why| format!("secretRef: password of `{user}`: {why}"))?;
        Ok::<_, String>((user.to_owned(), kept))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_kept_as_htpasswd_writes_them() {
        // Written by htpasswd of Apache 2.4 and by openssl passwd -apr1.
        for (written, password, holds) in [
            ("$apr1$xxxxxxxx$dxHfLAsjHkDRmG83UXe8K0", "password", true),
            ("$apr1$xxxxxxxx$dxHfLAsjHkDRmG83UXe8K0", "Password", false),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password", true),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "other", false),
        ] {
            assert_eq!(Kept::parse(written).unwrap().holds(password.as_bytes()), holds, "{written} {password}");
        }
        let bcrypt = bcrypt::hash("secret", 4).unwrap();
        assert!(Kept::parse(&bcrypt).unwrap().holds(b"secret"));
        assert!(!Kept::parse(&bcrypt).unwrap().holds(b"secreT"));
        for bad in ["plain", "$6$salt$hash", "{SHA}not base64", "$2y$05$short", "$apr1$only"] {
            assert!(Kept::parse(bad).is_err(), "{bad}");
        }
    }
}
