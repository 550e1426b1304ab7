//! The last good objects on disk: a file as [`kept`] makes them, readable by its owner alone, for it holds TLS keys. It holds the objects
//! as JSON.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atoll_wire::kept::{self, Unusable};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::objects::{Objects, Shelf};

const FILE: &str = "objects.last-good";
const FORM: &str = "atoll-gateway-objects-2";

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

/// Writes what [`encode`] made; a failure is said and changes nothing. Returns whether it is on disk.
pub(crate) async fn save(dir: PathBuf, file: Arc<Vec<u8>>) -> bool {
    match tokio::task::spawn_blocking(move || kept::write(&dir, FILE, &file)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "last good objects not written");
            false
        }
        Err(_) => false,
    }
}

/// The file's bytes; the same objects give the same bytes.
pub(crate) fn encode(hub: &str, objects: &Objects) -> Vec<u8> {
    let mut all = Map::new();
    put(&mut all, "classes", objects.classes.iter());
    put(&mut all, "gateways", objects.gateways.iter());
    put(&mut all, "sets", objects.sets.iter());
    put(&mut all, "routes", objects.routes.iter());
    put(&mut all, "grpc", objects.grpc.iter());
    put(&mut all, "tls", objects.tls.iter());
    put(&mut all, "tcp", objects.tcp.iter());
    put(&mut all, "udp", objects.udp.iter());
    put(&mut all, "policies", objects.policies.iter());
    put(&mut all, "grants", objects.grants.iter());
    put(&mut all, "secrets", objects.secrets.iter());
    put(&mut all, "configs", objects.configs.iter());
    put(&mut all, "services", objects.services.iter());
    put(&mut all, "slices", objects.slices.iter());
    put(&mut all, "namespaces", objects.namespaces.iter());
    put(&mut all, "ingresses", objects.ingresses.iter());
    put(&mut all, "ingressClasses", objects.ingress_classes.iter());
    let body = Value::Object(all).to_string();
    kept::encode(FORM, hub, &Value::Null, body.as_bytes())
}

pub(crate) fn decode(file: &[u8], hub: &str) -> Result<Objects, Unusable> {
    let (_, body) = kept::decode(FORM, file, (!hub.is_empty()).then_some(hub))?;
    let mut all: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Unusable::Form(FORM))?;
    Ok(Objects {
        definitions: Shelf::default(),
        classes: take(&mut all, "classes")?,
        gateways: take(&mut all, "gateways")?,
        sets: take(&mut all, "sets")?,
        routes: take(&mut all, "routes")?,
        grpc: take(&mut all, "grpc")?,
        tls: take(&mut all, "tls")?,
        tcp: take(&mut all, "tcp")?,
        udp: take(&mut all, "udp")?,
        policies: take(&mut all, "policies")?,
        grants: take(&mut all, "grants")?,
        secrets: take(&mut all, "secrets")?,
        configs: take(&mut all, "configs")?,
        services: take(&mut all, "services")?,
        slices: take(&mut all, "slices")?,
        namespaces: take(&mut all, "namespaces")?,
        ingresses: take(&mut all, "ingresses")?,
        ingress_classes: take(&mut all, "ingressClasses")?,
        derived: Arc::default(),
        balancers: Arc::default(),
        over: Arc::default(),
    })
}

/// Without managed fields and resource versions, which no table is made of and which change all the time.
fn put<'a, K: Resource + Clone + Serialize + 'a>(
    all: &mut Map<String, Value>,
    key: &str,
    objects: impl Iterator<Item = &'a Arc<K>>,
) {
    let plain = objects.filter_map(|object| {
        let mut object = K::clone(object);
        let meta: &mut ObjectMeta = object.meta_mut();
        meta.managed_fields = None;
        meta.resource_version = None;
        serde_json::to_value(object).ok()
    });
    all.insert(key.to_owned(), plain.collect());
}

fn take<K: DeserializeOwned, A: FromIterator<Arc<K>>>(all: &mut Map<String, Value>, key: &str) -> Result<A, Unusable> {
    let list: Vec<K> = serde_json::from_value(all.remove(key).unwrap_or(Value::Array(Vec::new())))
        .map_err(|_| Unusable::Form(FORM))?;
    Ok(list.into_iter().map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects() -> Objects {
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}, "spec": {"hostnames": ["a.example"]}});
        let routes = [Arc::new(serde_json::from_value(route).unwrap())];
        Objects { routes: routes.into_iter().collect(), ..Objects::default() }
    }

    #[test]
    fn objects_are_read_as_they_were_written_for_their_hub_alone() {
        let file = encode("hub-1", &objects());
        for (hub, wrong) in [("hub-1", ""), ("", ""), ("hub-2", "is of hub `hub-1`")] {
            let read = decode(&file, hub);
            assert_eq!(read.as_ref().err().map(ToString::to_string).unwrap_or_default(), wrong, "{hub}");
            if let Ok(found) = read {
                assert_eq!(found.routes.get("shop", "web").unwrap().spec.hostnames, ["a.example"], "{hub}");
                assert!(
                    found.routes.get("shop", "web").unwrap().metadata.resource_version.is_none(),
                    "the same objects give the same bytes"
                );
            }
        }
    }

    #[tokio::test]
    async fn the_file_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(save(dir.path().to_owned(), Arc::new(encode("hub-1", &objects()))).await);
        assert_eq!(load(Some(dir.path()), "hub-1").await.unwrap().routes.len(), 1);
        assert!(load(Some(&dir.path().join("none")), "hub-1").await.is_none());
    }
}
