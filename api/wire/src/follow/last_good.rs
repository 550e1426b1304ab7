//! The last good topology on disk: one file, checksummed, replaced by rename, readable by its owner alone.
//!
//! Form: a line of JSON (what it is, of which hub, version, length and SHA-256 of the rest), then for every fact two lengths
//! (big-endian u32) and key and value. A file that is damaged or of another hub is said and ignored, never deleted before
//! a better one replaces it.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use atoll_api::facts::{Facts, key};
use atoll_api::topology::{Settings, Version};
use serde_json::{Value, json};

use super::Follow;

const FILE: &str = "topology.last-good";
const FORM: &str = "atoll-topology-1";

/// Why a file was not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("read: {0}")]
    Read(#[from] io::Error),
    #[error("is not a topology of this version")]
    Form,
    #[error("is damaged: its checksum differs")]
    Damaged,
    #[error("is of hub `{0}`")]
    Foreign(String),
}

/// The last good topology, where there is one that can be used.
pub(super) async fn load(config: &Follow) -> Option<(Version, Facts)> {
    let path = config.dir.as_ref()?.join(FILE);
    let hub = config.hub_id.clone();
    let (path, read) = tokio::task::spawn_blocking(move || {
        let read = std::fs::read(&path).map_err(Unusable::Read).and_then(|file| decode(&file, hub.as_deref()));
        (path, read)
    })
    .await
    .ok()?;
    match read {
        Ok(found) => Some(found),
        Err(Unusable::Read(e)) if e.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "last good topology not used");
            None
        }
    }
}

/// Writes it; a failure is said and changes nothing.
pub(super) async fn save(config: &Follow, version: Version, facts: &Facts) {
    let Some(dir) = config.dir.clone() else { return };
    let file = encode(version, facts);
    let written = tokio::task::spawn_blocking(move || write(&dir, &file)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(%error, "last good topology not written");
    }
}

/// A write goes on when whoever waited for it has ended; the next one must not meet it.
static WRITING: Mutex<()> = Mutex::new(());

fn write(dir: &Path, file: &[u8]) -> io::Result<()> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::create_dir_all(dir)?;
    let next = dir.join(format!("{FILE}.next"));
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    out.write_all(file)?;
    out.sync_all()?;
    std::fs::rename(&next, dir.join(FILE))?;
    std::fs::File::open(dir)?.sync_all()
}

pub(super) fn encode(version: Version, facts: &Facts) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in facts.iter() {
        for part in [key.as_bytes(), value] {
            body.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        body.extend_from_slice(key.as_bytes());
        body.extend_from_slice(value);
    }
    let hub = facts.get::<Settings>(key::SETTINGS).unwrap_or_default().hub_id;
    let head = json!({"form": FORM, "hub": hub, "version": version, "length": body.len(), "sha256": sum(&body)});
    let mut out = head.to_string().into_bytes();
    out.push(b'\n');
    out.extend_from_slice(&body);
    out
}

pub(super) fn decode(file: &[u8], hub: Option<&str>) -> Result<(Version, Facts), Unusable> {
    let end = file.iter().position(|b| *b == b'\n').ok_or(Unusable::Form)?;
    let head: Value = serde_json::from_slice(&file[..end]).map_err(|_| Unusable::Form)?;
    let body = &file[end + 1..];
    if head["form"] != FORM {
        return Err(Unusable::Form);
    }
    if head["length"] != body.len() || head["sha256"] != sum(body) {
        return Err(Unusable::Damaged);
    }
    let whose = head["hub"].as_str().unwrap_or_default();
    if hub.is_some_and(|hub| hub != whose) {
        return Err(Unusable::Foreign(whose.to_owned()));
    }
    let version = serde_json::from_value(head["version"].clone()).map_err(|_| Unusable::Form)?;
    Ok((version, items(body).ok_or(Unusable::Form)?))
}

fn items(mut body: &[u8]) -> Option<Facts> {
    let mut facts = Facts::default();
    while !body.is_empty() {
        let (key_len, rest) = body.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*key_len) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_len) as usize)?;
        facts.put_json(String::from_utf8(key.to_vec()).ok()?, value.into());
        body = rest;
    }
    Some(facts)
}

fn sum(body: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(body).iter().map(|b| format!("{b:02x}")).collect()
}
