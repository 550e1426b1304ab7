//! Files that nobody reads without the key: last good files that hold the keys of others.
//!
//! In: a secret of whoever writes. Out: files whose head can be read (what it is, of which hub, by which key) and whose body can't, in
//! AES-256-GCM. The head is bound to the body: a file that was cut, changed, put together or written under another key is not opened.
//! The key itself is derived (HKDF-SHA256, RFC 5869) and never written by this.

use aws_lc_rs::aead::{AES_256_GCM, Aad, MAX_TAG_LEN, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use serde_json::{Value, json};

use super::{Unusable, of_hub};

const SALT: &[u8] = b"atoll.dev last good files 1";

/// A key for files.
pub struct Seal {
    key: RandomizedNonceKey,
    /// By which it is known, without telling it.
    id: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Seal({})", self.id)
    }
}

impl Seal {
    /// A secret that nobody else has, out of the system's randomness.
    #[must_use]
    pub fn fresh_secret() -> [u8; 32] {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).expect("the system has random octets");
        secret
    }

    /// The key that comes of a secret; the same for the same one.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let from = Salt::new(HKDF_SHA256, SALT).extract(secret);
        let (key, id) = (derive::<32>(&from, b"key"), derive::<8>(&from, b"id"));
        let key = RandomizedNonceKey::new(&AES_256_GCM, &key).expect("the key has the length of the algorithm");
        Self { key, id: id.iter().map(|b| format!("{b:02x}")).collect() }
    }

    /// A file's bytes. The same content never gives the same bytes.
    #[must_use]
    pub fn encode(&self, form: &'static str, hub: &str, body: Vec<u8>) -> Vec<u8> {
        let mut file =
            json!({"form": form, "hub": hub, "sealed": "AES-256-GCM", "key": self.id}).to_string().into_bytes();
        let mut body = body;
        // It fails for more than 64 GiB only, which is more than a body has.
        let nonce = self.key.seal_in_place_append_tag(Aad::from(&file), &mut body).expect("a body of less than 64 GiB");
        file.push(b'\n');
        file.extend_from_slice(nonce.as_ref());
        file.extend_from_slice(&body);
        file
    }

    /// The body. `hub`: the id of the hub that is ours, where known.
    ///
    /// # Errors
    /// When it is not whole, of another form, of another hub, or not under this key.
    pub fn decode(&self, form: &'static str, mut file: Vec<u8>, hub: Option<&str>) -> Result<Vec<u8>, Unusable> {
        let end = file.iter().position(|b| *b == b'\n').ok_or(Unusable::Form(form))?;
        let mut rest = file.split_off(end);
        let head: Value = serde_json::from_slice(&file).map_err(|_| Unusable::Form(form))?;
        if head["form"] != form {
            return Err(Unusable::Form(form));
        }
        of_hub(&head, hub)?;
        if head["key"] != self.id.as_str() {
            return Err(Unusable::Sealed);
        }
        if rest.len() < 1 + NONCE_LEN + MAX_TAG_LEN {
            return Err(Unusable::Damaged);
        }
        let mut body = rest.split_off(1 + NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&rest[1..]).map_err(|_| Unusable::Damaged)?;
        let opened = self.key.open_in_place(nonce, Aad::from(&file), &mut body).map_err(|_| Unusable::Damaged)?.len();
        body.truncate(opened);
        Ok(body)
    }
}

fn derive<const N: usize>(from: &Prk, what: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let what = [what];
    let filled = from.expand(&what, Bytes(N)).and_then(|okm| okm.fill(&mut out));
    filled.expect("HKDF gives up to 255 hashes");
    out
}

/// How much is derived.
struct Bytes(usize);

impl aws_lc_rs::hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_of_this_form_hub_and_key_is_opened_and_nothing_of_it_can_be_read() {
        let seal = Seal::new(b"ours");
        let file = seal.encode("letters-1", "hub-1", b"a private key".to_vec());
        let has = |what: &[u8]| file.windows(what.len()).any(|part| part == what);
        assert!(has(b"hub-1") && !has(b"private"), "{}", String::from_utf8_lossy(&file));
        assert_ne!(file, seal.encode("letters-1", "hub-1", b"a private key".to_vec()), "no nonce comes twice");
        let end = file.iter().position(|b| *b == b'\n').unwrap();
        let flipped = |at: usize| {
            let mut file = file.clone();
            file[at] ^= 1;
            file
        };
        let renamed = String::from_utf8_lossy(&file[..end]).replace("hub-1", "hub-2").into_bytes();
        let renamed = [&renamed, &file[end..]].concat();
        let (damaged, unsealed) = ("is damaged: its checksum differs", "is not sealed with this site's key");
        let ours = Some("hub-1");
        let cases: [(&str, Vec<u8>, Option<&str>, &str); 12] = [
            ("whole", file.clone(), ours, ""),
            ("hub not known yet", file.clone(), None, ""),
            ("another hub", file.clone(), Some("hub-2"), "is of hub `hub-1`"),
            ("said to be of another hub", renamed.clone(), Some("hub-2"), damaged),
            ("the same, hub not known yet", renamed, None, damaged),
            ("a bit of the body", flipped(file.len() - 20), ours, damaged),
            ("a bit of the nonce", flipped(end + 1), ours, damaged),
            ("the last octet is missing", file[..file.len() - 1].to_vec(), ours, damaged),
            ("cut after the head", file[..=end].to_vec(), ours, damaged),
            ("cut in the head", file[..end].to_vec(), ours, "is not a `letters-1`"),
            ("empty", Vec::new(), ours, "is not a `letters-1`"),
            ("not sealed", super::super::encode("letters-1", "hub-1", &Value::Null, b"open"), ours, unsealed),
        ];
        for (name, bytes, hub, wrong) in cases {
            let read = seal.decode("letters-1", bytes, hub);
            assert_eq!(read.as_ref().err().map(ToString::to_string).unwrap_or_default(), wrong, "{name}");
            if let Ok(body) = read {
                assert_eq!(body, b"a private key", "{name}");
            }
        }
        let theirs = Seal::new(b"theirs").decode("letters-1", file.clone(), ours);
        assert!(matches!(theirs, Err(Unusable::Sealed)), "{theirs:?}");
        assert!(matches!(seal.decode("digits-1", file, ours), Err(Unusable::Form("digits-1"))));
    }
}
