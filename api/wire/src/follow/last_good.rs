//! The last good topology on disk: a file as [`kept`] makes them, about its version. It holds for every fact two lengths (big-endian u32)
//! and key and value.

use std::io;

use atoll_api::facts::{Facts, key};
use atoll_api::topology::{Settings, Version};
use serde_json::json;
use tokio::task::JoinHandle;

use super::Follow;
use crate::kept::{self, Unusable};

const FILE: &str = "topology.last-good";
const FORM: &str = "atoll-topology-2";

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

/// Writes it, away from whoever listens to the hub; a failure is said and changes nothing. Gives whether nothing is left to write.
pub(super) fn save(config: &Follow, version: Version, facts: &Facts) -> JoinHandle<bool> {
    let (dir, facts) = (config.dir.clone(), facts.clone());
    tokio::task::spawn_blocking(move || {
        let Some(dir) = dir else { return true };
        let written = kept::write(&dir, FILE, &encode(version, &facts));
        if let Err(error) = &written {
            tracing::warn!(%error, "last good topology not written");
        }
        written.is_ok()
    })
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
    kept::encode(FORM, &hub, &json!(version), &body)
}

pub(super) fn decode(file: &[u8], hub: Option<&str>) -> Result<(Version, Facts), Unusable> {
    let (about, body) = kept::decode(FORM, file, hub)?;
    let version = serde_json::from_value(about).map_err(|_| Unusable::Form(FORM))?;
    Ok((version, items(body).ok_or(Unusable::Form(FORM))?))
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
