//! Transaction signatures (RFC 8945): who signed a message, and signing what goes back. Pure; the caller brings the time.
//!
//! ```text
//!   octets ── TSIG at the end? ── key known? ── MAC right? ── time right? ── whole? ──► the message without it, a Session
//!                                    BADKEY       BADSIG       BADTIME      BADTRUNC       │
//!                                    └──────────────── the error's reply ◄────────────────┘ signs every message back
//! ```
//!
//! In: octets as they came, the keys, the seconds of the era. Out: a [`Peeled`]. MACs are compared in constant time. Shortened MACs are
//! refused (§5.2.2.1 leaves it to us); HMAC-SHA256, -384 and -512 are taken.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use crate::names::{absolute, after_name, lower_octets};
use crate::wire::query::name as whole_name;

const TYPE: u16 = 250;
const HEADER_BYTES: usize = 12;
/// §10: recommended.
const FUDGE: u16 = 300;
/// NOTAUTH.
pub(crate) const NOTAUTH: u8 = 9;

mod error {
    pub(super) const BADSIG: u16 = 16;
    pub(super) const BADKEY: u16 = 17;
    pub(super) const BADTIME: u16 = 18;
    pub(super) const BADTRUNC: u16 = 22;
}

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    name: Name,
    algorithm: TsigAlgorithm,
    secret: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.algorithm)
    }
}

impl Key {
    /// Out of text: the name, the algorithm's name, the secret in base64.
    pub(crate) fn new(name: &str, algorithm: &str, secret: &str) -> Option<Self> {
        let algorithm = match algorithm.trim_end_matches('.').to_ascii_lowercase().as_str() {
            "hmac-sha256" => TsigAlgorithm::HmacSha256,
            "hmac-sha384" => TsigAlgorithm::HmacSha384,
            "hmac-sha512" => TsigAlgorithm::HmacSha512,
            _ => return None,
        };
        Some(Self { name: absolute(name)?, algorithm, secret: crate::sign::decode(secret)? })
    }

    fn mac(&self, message: &[u8]) -> Vec<u8> {
        // Only algorithms that are supported are taken.
        self.algorithm.mac_data(&self.secret, message).unwrap_or_default()
    }

    fn mac_bytes(&self) -> usize {
        match self.algorithm {
            TsigAlgorithm::HmacSha384 => 48,
            TsigAlgorithm::HmacSha512 => 64,
            _ => 32,
        }
    }

    /// What its TSIG takes in a message.
    pub(crate) fn room(&self) -> usize {
        self.name.len() + 10 + self.algorithm.to_name().len() + 1 + 16 + self.mac_bytes() + 6
    }
}

/// Every key, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyring(HashMap<Name, Arc<Key>>);

impl Keyring {
    /// Adds a key; `false` where another one has its name.
    pub(crate) fn add(&mut self, key: Key) -> bool {
        let held = self.0.entry(key.name.clone()).or_insert_with(|| Arc::new(key.clone()));
        **held == key
    }

    /// The key of a name.
    pub(crate) fn get(&self, name: &Name) -> Option<&Arc<Key>> {
        self.0.get(name)
    }
}

/// A message that was signed by a key, and what goes back.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    key: Arc<Key>,
    id: u16,
    mac: Vec<u8>,
    /// The first message back is signed over everything (§5.3.1).
    first: bool,
}

/// What a message is once its TSIG is looked at.
#[derive(Debug)]
pub(crate) enum Peeled {
    /// It has none.
    Plain,
    /// It was signed: the message without the signature, and with what to sign back.
    Signed(Vec<u8>, Box<Session>),
    /// It is refused with this reply, whose TSIG says why; the word is for metrics.
    Refused(Vec<u8>, &'static str),
    /// It breaks the format.
    Malformed,
}

/// A TSIG as it came.
struct Found {
    /// Where it begins.
    at: usize,
    name: Name,
    algorithm: Name,
    time: u64,
    fudge: u16,
    mac: Vec<u8>,
    id: u16,
    error: u16,
    other: Vec<u8>,
}

/// Looks at the TSIG of a message.
pub(crate) fn peel(packet: &[u8], keys: &Keyring, now_s: u64) -> Peeled {
    let found = match find(packet) {
        Ok(None) => return Peeled::Plain,
        Ok(Some(found)) => found,
        Err(()) => return Peeled::Malformed,
    };
    let message = without(packet, &found);
    let reply = refusal(&message);
    let key = keys.get(&found.name).filter(|key| key.algorithm.to_name() == found.algorithm);
    let Some(key) = key else {
        return Peeled::Refused(unsigned(reply, &found, error::BADKEY), "badkey");
    };
    // §5.2.2.1: longer than the hash, or shorter than half of it or ten octets: FORMERR.
    let whole = key.mac_bytes();
    if found.mac.len() > whole || found.mac.len() < (whole / 2).max(10) {
        return Peeled::Malformed;
    }
    let digest = [message.as_slice(), &variables(&found)].concat();
    let right = match found.mac.len() == whole {
        true => key.algorithm.verify_mac(&key.secret, &digest, &found.mac).is_ok(),
        false => same(&key.mac(&digest)[..found.mac.len()], &found.mac),
    };
    if !right {
        return Peeled::Refused(unsigned(reply, &found, error::BADSIG), "badsig");
    }
    let mut session = Session { key: Arc::clone(key), id: found.id, mac: found.mac.clone(), first: true };
    // §5.2.3: the client's own time and fudge go back, and our time.
    if found.time.abs_diff(now_s) > u64::from(found.fudge) {
        let other = &now_s.to_be_bytes()[2..];
        let reply = session.put(reply, found.time, found.fudge, error::BADTIME, other);
        return Peeled::Refused(reply, "badtime");
    }
    if found.mac.len() < whole {
        return Peeled::Refused(session.put(reply, now_s, FUDGE, error::BADTRUNC, &[]), "badtrunc");
    }
    Peeled::Signed(message, Box::new(session))
}

/// Whether both are the same, in a time that doesn't tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

impl Session {
    /// A message of ours to somebody: signed by `key`, answered to nobody.
    pub(crate) fn begin(key: Arc<Key>, id: u16) -> Self {
        Self { key, id, mac: Vec::new(), first: true }
    }

    /// The key's name.
    pub(crate) fn key(&self) -> String {
        self.key.name.to_ascii()
    }

    /// The same as a name.
    pub(crate) fn name(&self) -> &Name {
        &self.key.name
    }

    /// The MAC that this session goes on from.
    pub(crate) fn mac(&self) -> &[u8] {
        &self.mac
    }

    /// What a signature takes.
    pub(crate) fn room(&self) -> usize {
        self.key.room()
    }

    /// `message` with its signature.
    pub(crate) fn sign(&mut self, message: Vec<u8>, now_s: u64) -> Vec<u8> {
        self.put(message, now_s, FUDGE, 0, &[])
    }

    fn put(&mut self, message: Vec<u8>, time: u64, fudge: u16, error: u16, other: &[u8]) -> Vec<u8> {
        let mut found = Found {
            at: message.len(),
            name: self.key.name.clone(),
            algorithm: self.key.algorithm.to_name(),
            time,
            fudge,
            mac: Vec::new(),
            id: self.id,
            error,
            other: other.to_vec(),
        };
        let mut digest = Vec::with_capacity(message.len() + 256);
        if !self.mac.is_empty() {
            digest.extend_from_slice(&u16::try_from(self.mac.len()).unwrap_or(0).to_be_bytes());
            digest.extend_from_slice(&self.mac);
        }
        // §4.3.2: the digest is of the message with the id that it had when it was signed; who passes messages on gives them another.
        digest.extend_from_slice(&self.id.to_be_bytes());
        digest.extend_from_slice(message.get(2..).unwrap_or_default());
        if self.first {
            digest.extend(variables(&found));
        } else {
            // §5.3.1: of the later ones only the timers.
            digest.extend_from_slice(&time.to_be_bytes()[2..]);
            digest.extend_from_slice(&fudge.to_be_bytes());
        }
        found.mac = self.key.mac(&digest);
        self.mac.clone_from(&found.mac);
        self.first = false;
        append(message, &found)
    }
}

/// §4.3.3.
fn variables(found: &Found) -> Vec<u8> {
    let mut octets = lower_octets(&found.name);
    octets.extend_from_slice(&[0, 255, 0, 0, 0, 0]);
    octets.extend(lower_octets(&found.algorithm));
    octets.extend_from_slice(&found.time.to_be_bytes()[2..]);
    octets.extend_from_slice(&found.fudge.to_be_bytes());
    octets.extend_from_slice(&found.error.to_be_bytes());
    octets.extend_from_slice(&u16::try_from(found.other.len()).unwrap_or(0).to_be_bytes());
    octets.extend_from_slice(&found.other);
    octets
}

/// The message as it was signed: without the TSIG, with the id that it had then.
fn without(packet: &[u8], found: &Found) -> Vec<u8> {
    let mut message = packet[..found.at].to_vec();
    message[..2].copy_from_slice(&found.id.to_be_bytes());
    let count = u16::from_be_bytes([message[10], message[11]]) - 1;
    message[10..12].copy_from_slice(&count.to_be_bytes());
    message
}

/// The header and question of a reply that says NOTAUTH. The message was walked through before. A question whose name holds a pointer is
/// not repeated: what it points to may not be in the reply.
fn refusal(message: &[u8]) -> Vec<u8> {
    let questions = u16::from_be_bytes([message[4], message[5]]);
    let end = (0..questions).try_fold(HEADER_BYTES, |at, _| Some(at + whole_name(message.get(at..)?)?.len() + 4));
    let question = end.and_then(|end| message.get(HEADER_BYTES..end));
    let mut reply = message[..HEADER_BYTES].to_vec();
    reply[2] = 0x80 | (reply[2] & 0x79);
    reply[3] = NOTAUTH;
    reply[6..].fill(0);
    match question {
        Some(question) => reply.extend_from_slice(question),
        None => reply[4..].fill(0),
    }
    reply
}

fn unsigned(reply: Vec<u8>, found: &Found, error: u16) -> Vec<u8> {
    let bare = Found {
        at: 0,
        name: found.name.clone(),
        algorithm: found.algorithm.clone(),
        mac: Vec::new(),
        other: Vec::new(),
        error,
        ..*found
    };
    append(reply, &bare)
}

fn append(mut message: Vec<u8>, found: &Found) -> Vec<u8> {
    let algorithm = lower_octets(&found.algorithm);
    message.extend(lower_octets(&found.name));
    message.extend_from_slice(&TYPE.to_be_bytes());
    message.extend_from_slice(&[0, 255, 0, 0, 0, 0]);
    let length = algorithm.len() + 16 + found.mac.len() + found.other.len();
    message.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
    message.extend(algorithm);
    message.extend_from_slice(&found.time.to_be_bytes()[2..]);
    message.extend_from_slice(&found.fudge.to_be_bytes());
    message.extend_from_slice(&u16::try_from(found.mac.len()).unwrap_or(0).to_be_bytes());
    message.extend_from_slice(&found.mac);
    message.extend_from_slice(&found.id.to_be_bytes());
    message.extend_from_slice(&found.error.to_be_bytes());
    message.extend_from_slice(&u16::try_from(found.other.len()).unwrap_or(0).to_be_bytes());
    message.extend_from_slice(&found.other);
    let count = u16::from_be_bytes([message[10], message[11]]).saturating_add(1);
    message[10..12].copy_from_slice(&count.to_be_bytes());
    message
}

/// The TSIG at the end of a message; an error for one that stands elsewhere (§5.1) or ends too late.
fn find(packet: &[u8]) -> Result<Option<Found>, ()> {
    let count = |at: usize| packet.get(at..at + 2).map(|c| usize::from(u16::from_be_bytes([c[0], c[1]]))).ok_or(());
    let (questions, additionals) = (count(4)?, count(10)?);
    let records = count(6)? + count(8)? + additionals;
    if additionals == 0 {
        return Ok(None);
    }
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = after_name(packet, at).ok_or(())? + 4;
    }
    for record in 1..=records {
        let start = at;
        at = after_name(packet, at).ok_or(())?;
        let fixed = packet.get(at..at + 10).ok_or(())?;
        let (kind, length) = (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[8], fixed[9]]));
        let (fields, data) = (at, at + 10);
        at = data + usize::from(length);
        if at > packet.len() {
            return Err(());
        }
        if kind != TYPE {
            continue;
        }
        // §4.2: class ANY, TTL 0; §5.1: the last record, and nothing behind it.
        let placed = record == records && at == packet.len() && packet[fields + 2..fields + 8] == [0, 255, 0, 0, 0, 0];
        return if placed { read(packet, start, data, at).map(Some).ok_or(()) } else { Err(()) };
    }
    Ok(None)
}

fn read(packet: &[u8], at: usize, data: usize, end: usize) -> Option<Found> {
    let mut name = Name::read(&mut BinDecoder::new(packet).clone(u16::try_from(at).ok()?)).ok()?.to_lowercase();
    name.set_fqdn(true);
    let mut rest = packet.get(data..end)?;
    let mut decoder = BinDecoder::new(rest);
    let mut algorithm = Name::read(&mut decoder).ok()?.to_lowercase();
    // As the names of algorithms that we compare it with.
    algorithm.set_fqdn(false);
    rest = rest.get(decoder.index()..)?;
    let mut take = |count: usize| {
        let (head, tail) = rest.split_at_checked(count)?;
        rest = tail;
        Some(head)
    };
    let word = |octets: &[u8]| u16::from_be_bytes([octets[0], octets[1]]);
    let time = take(6)?.iter().fold(0, |sum, octet| sum << 8 | u64::from(*octet));
    let fudge = word(take(2)?);
    let length = usize::from(word(take(2)?));
    let mac = take(length)?.to_vec();
    let (id, error) = (word(take(2)?), word(take(2)?));
    let length = usize::from(word(take(2)?));
    let other = take(length)?.to_vec();
    rest.is_empty().then_some(Found { at, name, algorithm, time, fudge, mac, id, error, other })
}

#[cfg(test)]
mod tests;
