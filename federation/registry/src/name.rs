//! Digests and image names, parsed once and valid ever after.
//!
//! Input: strings from objects, headers and manifests. Output: checked types. Never: a request. Source: OCI image specification,
//! "Digests"; OCI distribution specification 1.1, "Pulling manifests" (the two grammars).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// Longest name of a repository, in octets, that registries agree on.
const REPOSITORY_LEN_MAX: usize = 255;
/// Longest tag, in octets.
const TAG_LEN_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `sha256:` and 64, or `sha512:` and 128, lower-case hex digits.
    #[error("`{0}` is no digest: want sha256:<64 hex digits> or sha512:<128 hex digits>")]
    Digest(String),
    /// Not a repository.
    #[error("`{0}` is no repository: want lower-case letters, digits and . _ - in parts divided by /")]
    Repository(String),
    /// Not a tag.
    #[error("`{0}` is no tag: want 1 to 128 letters, digits and . _ -, the first neither . nor -")]
    Tag(String),
}

/// The name of content by its hash, for example `sha256:44136f…`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex::encode(Sha256::digest(bytes))))
    }

    /// As text, algorithm included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve hex digits, for messages.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }

    /// A hasher of this digest's algorithm.
    pub fn hasher(&self) -> Hasher {
        if self.0.starts_with("sha512:") { Hasher::Sha512(Sha512::new()) } else { Hasher::Sha256(Sha256::new()) }
    }

    /// Whether this is the digest of `bytes`.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let hex_len = match s.split_once(':') {
            Some(("sha256", _)) => 64,
            Some(("sha512", _)) => 128,
            _ => return Err(NameError::Digest(s.to_owned())),
        };
        let hex = &s[7..];
        if hex.len() == hex_len && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(s.to_owned()))
        } else {
            Err(NameError::Digest(s.to_owned()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> Self {
        d.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hash under way; a clone is a checkpoint.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hasher {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(h) => Digest(format!("sha256:{}", hex::encode(h.finalize()))),
            Self::Sha512(h) => Digest(format!("sha512:{}", hex::encode(h.finalize()))),
        }
    }
}

/// An image as a person names it: `shop/web:2`, `shop/web@sha256:…`, or both, where the digest counts and the tag is kept.
/// A name without either means the tag `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    /// The repository, without a registry's address.
    pub repository: String,
    /// The tag, where one was given.
    pub tag: Option<String>,
    /// The digest, where one was given.
    pub digest: Option<Digest>,
}

impl FromStr for ImageRef {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let (name, digest) = match s.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (s, None),
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (name, None),
        };
        check_repository(repository)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let tag = if digest.is_none() { Some(tag.unwrap_or("latest").to_owned()) } else { tag.map(str::to_owned) };
        Ok(Self { repository: repository.to_owned(), tag, digest })
    }
}

impl ImageRef {
    /// What goes into a request: the digest where there is one, else the tag.
    pub fn reference(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether `name` is a repository by the grammar of the distribution specification.
///
/// # Errors
/// [`NameError::Repository`]; a retry never helps.
pub fn check_repository(name: &str) -> Result<(), NameError> {
    let good_part = |part: &str| {
        let bytes = part.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
            && !part.contains("..")
            && !part.contains("___")
    };
    if name.len() <= REPOSITORY_LEN_MAX && name.split('/').all(good_part) {
        Ok(())
    } else {
        Err(NameError::Repository(name.to_owned()))
    }
}

/// Whether `tag` is a tag by the grammar of the distribution specification.
///
/// # Errors
/// [`NameError::Tag`]; a retry never helps.
pub fn check_tag(tag: &str) -> Result<(), NameError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    let good = bytes.first().is_some_and(|b| word(*b))
        && bytes.len() <= TAG_LEN_MAX
        && bytes.iter().all(|b| word(*b) || b".-".contains(b));
    if good { Ok(()) } else { Err(NameError::Tag(tag.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_read_as_people_write_them() {
        let cases = [
            ("shop/web:2", "shop/web", Some("2"), None),
            ("shop/web", "shop/web", Some("latest"), None),
            (&format!("shop/web@{D}"), "shop/web", None, Some(D)),
            (&format!("shop/web:2@{D}"), "shop/web", Some("2"), Some(D)),
            ("a/b/c__d/e-f.g:V1.2-rc_3", "a/b/c__d/e-f.g", Some("V1.2-rc_3"), None),
        ];
        for (text, repository, tag, digest) in cases {
            let got: ImageRef = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((got.repository.as_str(), got.tag.as_deref()), (repository, tag), "{text}");
            assert_eq!(got.digest.as_ref().map(Digest::as_str), digest, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":1",
            "Shop/web:1",
            "shop//web",
            "/web",
            "shop/web:",
            "shop/web:-1",
            "shop/../web",
            "a@sha256:12",
            "a b:1",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
        assert!(format!("{}:1", "a".repeat(256)).parse::<ImageRef>().is_err());
        assert!(format!("a:{}", "a".repeat(129)).parse::<ImageRef>().is_err());
    }

    #[test]
    fn a_digest_knows_its_bytes() {
        assert_eq!(Digest::of(b"").as_str(), D);
        assert!(Digest::of(b"x").matches(b"x") && !Digest::of(b"x").matches(b"y"));
        let mut long = Hasher::Sha512(Sha512::new());
        long.update(b"x");
        assert!(long.finish().matches(b"x"));
        for bad in ["sha256:E3B0", "md5:00", "", "sha256:", "sha256-x", &D[..70], &D.to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
