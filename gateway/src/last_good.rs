//! The last good objects on disk: one file, checksummed, replaced by rename, readable by its owner alone, for it holds TLS keys.
//!
//! Form: a line of JSON (what it is, of which hub, length and SHA-256 of the rest), then the objects as JSON. A file that is damaged
//! or of another hub is said and ignored, never deleted before a better one replaces it.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::Digest as _;

use crate::objects::Objects;

const FILE: &str = "objects.last-good";
const FORM: &str = "atoll-gateway-objects-1";

/// Why a file was not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("read: {0}")]
    Read(#[from] io::Error),
    #[error("does not hold objects in the form of this version")]
    Form,
    #[error("is damaged: its checksum differs")]
    Damaged,
    #[error("is of hub `{0}`")]
    Foreign(String),
}

/// The last good objects, where there are some that can be used. `hub` is the id of the hub that is ours, where known.
pub(crate) async fn load(dir: Option<&Path>, hub: &str) -> Option<Objects> {
    let path = dir?.join(FILE);
    let hub = hub.to_owned();
    let (path, read) = tokio::task::spawn_blocking(move || {
        let read = std::fs::read(&path).map_err(Unusable::Read).and_then(|file| decode(&file, &hub));
        (path, read)
    })
    .await
    .ok()?;
    match read {
        Ok(found) => {
            tracing::info!(routes = found.routes.len(), gateways = found.gateways.len(), "last good objects loaded");
            Some(found)
        }
        Err(Unusable::Read(e)) if e.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "last good objects not used");
            None
        }
    }
}

/// Writes them; a failure is said and changes nothing. Returns whether they are on disk.
pub(crate) async fn save(dir: PathBuf, hub: &str, objects: &Objects) -> bool {
    let file = encode(hub, objects);
    match tokio::task::spawn_blocking(move || write(&dir, &file)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "last good objects not written");
            false
        }
        Err(_) => false,
    }
}

fn write(dir: &Path, file: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let next = dir.join(format!("{FILE}.next"));
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    out.write_all(file)?;
    out.sync_all()?;
    std::fs::rename(&next, dir.join(FILE))?;
    std::fs::File::open(dir)?.sync_all()
}

/// The file's bytes; the same objects give the same bytes.
pub(crate) fn encode(hub: &str, objects: &Objects) -> Vec<u8> {
    let mut all = Map::new();
    put(&mut all, "classes", &objects.classes);
    put(&mut all, "gateways", &objects.gateways);
    put(&mut all, "routes", &objects.routes);
    put(&mut all, "grants", &objects.grants);
    put(&mut all, "secrets", &objects.secrets);
    put(&mut all, "services", &objects.services);
    put(&mut all, "slices", &objects.slices);
    put(&mut all, "namespaces", &objects.namespaces);
    let body = Value::Object(all).to_string();
    let head = json!({"form": FORM, "hub": hub, "length": body.len(), "sha256": sum(body.as_bytes())});
    format!("{head}\n{body}").into_bytes()
}

pub(crate) fn decode(file: &[u8], hub: &str) -> Result<Objects, Unusable> {
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
    if !hub.is_empty() && !whose.is_empty() && hub != whose {
        return Err(Unusable::Foreign(whose.to_owned()));
    }
    let mut all: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Unusable::Form)?;
    Ok(Objects {
        classes: take(&mut all, "classes")?,
        gateways: take(&mut all, "gateways")?,
        routes: take(&mut all, "routes")?,
        grants: take(&mut all, "grants")?,
        secrets: take(&mut all, "secrets")?,
        services: take(&mut all, "services")?,
        slices: take(&mut all, "slices")?,
        namespaces: take(&mut all, "namespaces")?,
    })
}

/// Without managed fields and resource versions, which no table is made of and which change all the time.
fn put<K: Resource + Clone + Serialize>(all: &mut Map<String, Value>, key: &str, objects: &[Arc<K>]) {
    let plain = objects.iter().filter_map(|object| {
        let mut object = K::clone(object);
        let meta: &mut ObjectMeta = object.meta_mut();
        meta.managed_fields = None;
        meta.resource_version = None;
        serde_json::to_value(object).ok()
    });
    all.insert(key.to_owned(), plain.collect());
}

fn take<K: DeserializeOwned>(all: &mut Map<String, Value>, key: &str) -> Result<Vec<Arc<K>>, Unusable> {
    let list: Vec<K> =
        serde_json::from_value(all.remove(key).unwrap_or(Value::Array(Vec::new()))).map_err(|_| Unusable::Form)?;
    Ok(list.into_iter().map(Arc::new).collect())
}

fn sum(body: &[u8]) -> String {
    sha2::Sha256::digest(body).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> Objects {
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}, "spec": {"hostnames": ["a.example"]}});
        Objects { routes: vec![Arc::new(serde_json::from_value(route).unwrap())], ..Objects::default() }
    }

    #[test]
    fn only_a_whole_file_of_this_hub_is_used() {
        let file = encode("hub-1", &objects());
        let mut flipped = file.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let cases: [(&str, &[u8], &str, &str); 6] = [
            ("whole", &file, "hub-1", ""),
            ("hub not known yet", &file, "", ""),
            ("another hub", &file, "hub-2", "is of hub `hub-1`"),
            ("one bit", &flipped, "hub-1", "is damaged: its checksum differs"),
            ("cut", &file[..file.len() - 1], "hub-1", "is damaged: its checksum differs"),
            ("something else", b"{}\n[]", "hub-1", "does not hold objects in the form of this version"),
        ];
        for (name, bytes, hub, wrong) in cases {
            let read = decode(bytes, hub);
            assert_eq!(read.as_ref().err().map(ToString::to_string).unwrap_or_default(), wrong, "{name}");
            if let Ok(found) = read {
                assert_eq!(found.routes[0].spec.hostnames, ["a.example"], "{name}");
            }
        }
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        assert!(save(dir.path().to_owned(), "hub-1", &objects()).await);
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load(Some(dir.path()), "hub-1").await.unwrap().routes.len(), 1);
        assert!(load(Some(&dir.path().join("none")), "hub-1").await.is_none());
    }
}
