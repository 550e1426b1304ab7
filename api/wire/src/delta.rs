//! Sets of keyed facts on the wire: changes cut into messages on one side, put together and checked on the other.
//!
//! In: [`Facts`] as they are now, or a [`v1::Delta`]. Out: the messages that bring the other side there, or the change that a
//! finished delta made. A [`Sender`] remembers what it sent, so that only changes travel; a [`Receiver`] takes a delta only when
//! it was made from what it holds and ends at the digest it names, refuses older epochs, and keeps what it had otherwise.
//! Never: deletes what is merely absent, or holds more than its bound.

use std::sync::{Arc, OnceLock};

use atoll_api::facts::{Change, Digest, Facts, item_bytes};
use atoll_api::topology::Version;

use crate::v1;

/// Items of one message, together, at most: well below the 4 MiB that tonic decodes by default.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// One item at most; a longer one is left out of the set and said.
pub const ITEM_BYTES_MAX: usize = 3 << 20;
/// What a receiver holds at most, and takes for one change: keys, values, and what each item costs beside them.
pub const SET_BYTES_MAX: usize = 256 << 20;

/// Turns a set as it is now into the messages that bring the other side there.
#[derive(Debug, Default)]
pub struct Sender {
    sent: Option<Facts>,
    version: Version,
}

impl Sender {
    /// A sender that has sent nothing, of a hub with this epoch (agents: 0).
    pub fn new(epoch: u64) -> Self {
        Self { sent: None, version: Version { epoch, generation: 0 } }
    }

    /// Messages that turn what was sent last into `facts`; a full set when nothing was; none when nothing changed. The
    /// generation counts up by one.
    pub fn update(&mut self, facts: &Facts) -> Vec<v1::Delta> {
        self.update_to(facts, self.version.generation + 1)
    }

    /// As [`Self::update`], for a set that has generations of its own.
    pub fn update_to(&mut self, facts: &Facts, generation: u64) -> Vec<v1::Delta> {
        let held;
        let facts = if facts.iter().any(|(_, json)| json.len() > ITEM_BYTES_MAX) {
            held = without_oversize(facts);
            &held
        } else {
            facts
        };
        let change = match &self.sent {
            Some(sent) if sent.digest() == facts.digest() => return Vec::new(),
            Some(sent) => sent.diff(facts),
            None => facts.full(),
        };
        let base = self.version.generation;
        self.version.generation = generation;
        self.sent = Some(facts.clone());
        chunks(change, self.version, base, facts.digest())
    }

    /// As [`Self::update_to`], for a set that many follow: whoever was sent the state before `shared` gets its messages, whoever
    /// starts gets those of the whole, made once for all; for whoever has fallen behind they are made anew. Items of the set are
    /// within their bound.
    pub fn follow(&mut self, shared: &Shared) -> Arc<[v1::Delta]> {
        let (facts, generation) = (&shared.facts, shared.version.generation);
        let base = self.version.generation;
        let messages = match &self.sent {
            Some(sent) if sent.digest() == facts.digest() => return Arc::new([]),
            Some(_) if base == shared.base && self.version.epoch == shared.version.epoch => Arc::clone(&shared.step),
            Some(sent) => chunks(sent.diff(facts), shared.version, base, facts.digest()).into(),
            None => shared.whole(),
        };
        self.version = Version { epoch: shared.version.epoch, generation };
        self.sent = Some(facts.clone());
        messages
    }

    /// Forgets what was sent (the other side asked for it): the next update is a full one.
    pub fn forget(&mut self) {
        self.sent = None;
    }

    /// What was sent last, epoch and generation.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Digest of the set as sent; of the empty set where nothing was.
    pub fn digest(&self) -> [u8; 32] {
        self.sent.as_ref().map(Facts::digest).unwrap_or_default().to_bytes()
    }
}

/// One state of a set that many follow, with what leads there. Clones share it.
#[derive(Debug, Clone)]
pub struct Shared {
    facts: Facts,
    version: Version,
    base: u64,
    step: Arc<[v1::Delta]>,
    whole: Arc<OnceLock<Arc<[v1::Delta]>>>,
}

impl Shared {
    /// The state `facts` as `version`, which `change` made out of generation `base`. No item is longer than [`ITEM_BYTES_MAX`].
    pub fn new(facts: Facts, version: Version, base: u64, change: Change) -> Self {
        let step = chunks(change, version, base, facts.digest()).into();
        Self { facts, version, base, step, whole: Arc::default() }
    }

    /// The set.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    fn whole(&self) -> Arc<[v1::Delta]> {
        let cut = || chunks(self.facts.full(), self.version, 0, self.facts.digest()).into();
        Arc::clone(self.whole.get_or_init(cut))
    }
}

fn without_oversize(facts: &Facts) -> Facts {
    let mut kept = Facts::default();
    for (key, json) in facts.iter() {
        if json.len() > ITEM_BYTES_MAX {
            tracing::warn!(key, bytes = json.len(), limit = ITEM_BYTES_MAX, "fact is too long to be sent, left out");
        } else {
            kept.put_json(key.to_owned(), json.clone());
        }
    }
    kept
}

fn chunks(change: Change, version: Version, base: u64, digest: Digest) -> Vec<v1::Delta> {
    let empty = || v1::Delta {
        version: Some(v1::Version { epoch: version.epoch, generation: version.generation }),
        base,
        full: change.full,
        more: true,
        upserts: Vec::new(),
        removed: Vec::new(),
        digest: bytes::Bytes::new(),
    };
    let mut out = vec![empty()];
    let mut size = 0;
    let mut room = |out: &mut Vec<v1::Delta>, bytes: usize| {
        if size > 0 && size + bytes > CHUNK_BYTES_MAX {
            out.push(empty());
            size = 0;
        }
        size += bytes;
        out.len() - 1
    };
    for (key, json) in change.upserts {
        let at = room(&mut out, key.len() + json.len());
        out[at].upserts.push(v1::Item { key, json: bytes::Bytes::from_owner(json) });
    }
    for key in change.removed {
        let at = room(&mut out, key.len());
        out[at].removed.push(key);
    }
    let last = out.last_mut().expect("there is at least one chunk");
    last.more = false;
    last.digest = bytes::Bytes::copy_from_slice(&digest.to_bytes());
    out
}

/// Why a delta was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// From a hub that is no longer the leader.
    #[error("epoch {got} is older than {have}")]
    OlderEpoch {
        /// The newest epoch obeyed.
        have: u64,
        /// The epoch of the delta.
        got: u64,
    },
    /// Made from something else than what is held.
    #[error("made from generation {base}, but {have:?} is held")]
    Base {
        /// What the delta was made from.
        base: u64,
        /// What is held.
        have: Option<Version>,
    },
    /// A chunk of another delta came in between.
    #[error("chunks of two deltas are mixed")]
    Mixed,
    /// The result is not what the sender has.
    #[error("digest differs after the change")]
    Digest,
    /// More than this side holds.
    #[error("more than {SET_BYTES_MAX} bytes of facts")]
    TooMuch,
}

impl Refused {
    /// Whether asking for the full set helps. It does not against an older epoch: that sender is to be left alone.
    pub fn wants_resync(&self) -> bool {
        !matches!(self, Self::OlderEpoch { .. })
    }
}

/// Puts deltas together again.
#[derive(Debug)]
pub struct Receiver {
    facts: Facts,
    version: Option<Version>,
    epoch_min: u64,
    open: Option<Open>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Open {
    version: Version,
    base: u64,
    bytes: usize,
    change: Change,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Receiver {
    /// Holds nothing; refuses epochs older than `epoch_min`.
    pub fn new(epoch_min: u64) -> Self {
        Self::with(Facts::default(), epoch_min)
    }

    /// Starts with a set known from before (the last good one), which any full delta replaces.
    pub fn with(facts: Facts, epoch_min: u64) -> Self {
        Self { facts, version: None, epoch_min, open: None, bytes_max: SET_BYTES_MAX }
    }

    /// Takes one message. `Ok(None)`: more is to come, or nothing changed. `Ok(Some(change))`: the delta is complete and taken.
    ///
    /// # Errors
    /// Why the delta was refused; what was held is held on, and only a full delta is taken from then on.
    pub fn take(&mut self, delta: v1::Delta) -> Result<Option<Change>, Refused> {
        let taken = self.assemble(delta);
        if taken.is_err() {
            self.open = None;
            self.version = None;
        }
        taken
    }

    fn assemble(&mut self, delta: v1::Delta) -> Result<Option<Change>, Refused> {
        let version = delta.version.map(|v| Version { epoch: v.epoch, generation: v.generation }).unwrap_or_default();
        if version.epoch < self.epoch_min {
            return Err(Refused::OlderEpoch { have: self.epoch_min, got: version.epoch });
        }
        let open = self.open.get_or_insert_with(|| Open {
            version,
            base: delta.base,
            bytes: 0,
            change: Change { full: delta.full, ..Change::default() },
        });
        if (open.version, open.base, open.change.full) != (version, delta.base, delta.full) {
            return Err(Refused::Mixed);
        }
        for item in delta.upserts {
            open.bytes += item_bytes(&item.key, &item.json);
            open.change.upserts.insert(item.key, Arc::from(&item.json[..]));
        }
        open.bytes += delta.removed.iter().map(|key| item_bytes(key, &[])).sum::<usize>();
        open.change.removed.extend(delta.removed);
        if open.bytes > self.bytes_max {
            return Err(Refused::TooMuch);
        }
        if delta.more {
            return Ok(None);
        }
        let Open { base, change, .. } = self.open.take().expect("was put there above");
        self.finish(version, base, change, &delta.digest)
    }

    fn finish(
        &mut self,
        version: Version,
        base: u64,
        change: Change,
        digest: &[u8],
    ) -> Result<Option<Change>, Refused> {
        let follows = self.version.is_some_and(|have| have.epoch == version.epoch && have.generation == base);
        if !change.full && !follows {
            return Err(Refused::Base { base, have: self.version });
        }
        let held = self.facts.clone();
        self.facts.apply(&change);
        let refused = if self.facts.digest().to_bytes() != digest {
            Some(Refused::Digest)
        } else {
            (self.facts.bytes() > self.bytes_max).then_some(Refused::TooMuch)
        };
        if let Some(refused) = refused {
            self.facts = held;
            return Err(refused);
        }
        self.version = Some(version);
        self.epoch_min = version.epoch;
        Ok((change.full || self.facts.digest() != held.digest()).then_some(change))
    }

    /// The set as it is held.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What is held; `None` before the first full delta and after a refusal.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The newest epoch obeyed.
    pub fn epoch(&self) -> u64 {
        self.epoch_min
    }

    /// Whether the sender's digest is that of the set as held. `false` means: ask for a resync.
    pub fn agrees(&self, digest: &[u8]) -> bool {
        self.version.is_some() && self.facts.digest().to_bytes() == digest
    }
}

#[cfg(test)]
mod tests;
