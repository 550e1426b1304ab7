//! One object at rest: its key, its bytes, what is looked up often, and the checksummed form on disk.
//! In: JSON; out: JSON bytes that always begin `{"apiVersion":…`. A record that fails its checksum is never used.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde_json::Value;

use crate::object;

/// Where an object lies: `group/resource`, namespace (empty for cluster scope), name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) collection: Arc<str>,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
}

impl Key {
    pub(crate) fn new(collection: &Arc<str>, namespace: &str, name: &str) -> Self {
        Self { collection: collection.clone(), namespace: namespace.into(), name: name.into() }
    }

    /// The key on disk: the parts with NUL between them, which none of them can hold.
    pub(super) fn to_disk(&self) -> Vec<u8> {
        [self.collection.as_bytes(), self.namespace.as_bytes(), self.name.as_bytes()].join(&0)
    }

    pub(super) fn from_disk(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split('\0');
        let key =
            Self { collection: parts.next()?.into(), namespace: parts.next()?.into(), name: parts.next()?.into() };
        parts.next().is_none().then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.collection, self.namespace, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One object as it is kept: compact JSON, with labels, uid and owners beside it for selectors and collection.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) revision: u64,
    pub(crate) uid: u128,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    pub(crate) owners: Box<[u128]>,
    pub(crate) terminating: bool,
}

impl Stored {
    /// Stamps the revision into a value and packs it.
    pub(crate) fn pack(mut value: Value, revision: u64) -> Self {
        object::meta_mut(&mut value).insert("resourceVersion".into(), revision.to_string().into());
        let bytes = Bytes::from(value.to_string());
        Self::index(&value, bytes, revision)
    }

    fn index(value: &Value, bytes: Bytes, revision: u64) -> Self {
        let labels = object::at(value, &["metadata", "labels"]).and_then(Value::as_object);
        Self {
            bytes,
            revision,
            uid: object::parse_uid(object::meta(value, "uid")).unwrap_or_default(),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
                .collect(),
            owners: object::owner_uids(value).into(),
            terminating: object::is_terminating(value),
        }
    }

    /// The object as JSON.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("stored bytes were written by pack or checked by decode")
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v)
    }

    /// The record on disk: CRC-32 over key, revision and JSON; revision; JSON.
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let revision = self.revision.to_le_bytes();
        let sum = checksum(key, &revision, &self.bytes);
        [&sum.to_le_bytes()[..], &revision, &self.bytes].concat()
    }

    /// Reads a record back; none if its checksum or its JSON is broken.
    pub(super) fn decode(key: &[u8], record: &[u8]) -> Option<Self> {
        let (sum, rest) = record.split_at_checked(4)?;
        let (revision, json) = rest.split_at_checked(8)?;
        if u32::from_le_bytes(sum.try_into().ok()?) != checksum(key, revision, json) {
            return None;
        }
        let value: Value = serde_json::from_slice(json).ok()?;
        Some(Self::index(&value, Bytes::copy_from_slice(json), u64::from_le_bytes(revision.try_into().ok()?)))
    }
}

fn checksum(key: &[u8], revision: &[u8], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(revision);
    hasher.update(json);
    hasher.finalize()
}
