//! The last good objects on disk: a file as [`kept`] makes them, sealed, for it holds TLS keys. It holds the objects as JSON.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use atoll_wire::kept::{self, Unusable};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::LastGood;
use crate::names::Leads;
use crate::objects::{Objects, Shelf};

const FILE: &str = "objects.last-good";
const FORM: &str = "atoll-gateway-objects-3";

/// The last good objects, where there are some that can be used.
pub(crate) async fn load(kept: Option<&Arc<LastGood>>) -> Option<Objects> {
    let kept = Arc::clone(kept?);
    let path = kept.dir.join(FILE);
    let (path, read) = tokio::task::spawn_blocking(move || {
        let read = std::fs::read(&path).map_err(Unusable::Read).and_then(|file| decode(file, &kept));
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
            let without = "not ready until the hub's API answers";
            tracing::warn!(file = %path.display(), %error, without, "last good objects not used");
            None
        }
    }
}

/// Writes what [`encode`] made, for that hub; a failure is said and changes nothing. Returns whether it is on disk.
pub(crate) async fn save(kept: Arc<LastGood>, hub: String, body: Vec<u8>) -> bool {
    let write = move || kept::write(&kept.dir, FILE, &kept.seal.encode(FORM, &hub, body));
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "last good objects not written");
            false
        }
        Err(_) => false,
    }
}

/// What the file holds; the same objects give the same bytes.
pub(crate) fn encode(objects: &Objects) -> Vec<u8> {
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
    let names = objects.names.iter().map(|(name, leads)| (name.to_string(), json!(leads.addresses)));
    all.insert("names".to_owned(), names.collect());
    let pods = objects.pods.iter().map(|((namespace, name), labels)| (format!("{namespace}/{name}"), json!(**labels)));
    all.insert("pods".to_owned(), pods.collect());
    Value::Object(all).to_string().into_bytes()
}

fn decode(file: Vec<u8>, kept: &LastGood) -> Result<Objects, Unusable> {
    let body = kept.seal.decode(FORM, file, kept.hub.as_deref())?;
    let mut all: Map<String, Value> = serde_json::from_slice(&body).map_err(|_| Unusable::Form(FORM))?;
    // Files of before names were followed have none.
    let names: BTreeMap<String, Vec<IpAddr>> = all
        .remove("names")
        .map_or_else(|| Ok(BTreeMap::new()), serde_json::from_value)
        .map_err(|_| Unusable::Form(FORM))?;
    // Nor have those of before subsets.
    let pods: BTreeMap<String, BTreeMap<String, String>> = all
        .remove("pods")
        .map_or_else(|| Ok(BTreeMap::new()), serde_json::from_value)
        .map_err(|_| Unusable::Form(FORM))?;
    let pod = |(name, labels): (String, _)| {
        let (namespace, name) = name.split_once('/')?;
        Some(((namespace.to_owned(), name.to_owned()), Arc::new(labels)))
    };
    let led = |addresses| Arc::new(Leads { addresses, refused: Vec::new() });
    let names = names.into_iter().map(|(name, addresses)| (name.into(), led(addresses))).collect();
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
        names: Arc::new(names),
        pods: pods.into_iter().filter_map(pod).collect(),
    })
}

/// Without managed fields and resource versions, which no table is made of and which change all the time.
fn put<'a, K: Serialize + 'a>(all: &mut Map<String, Value>, key: &str, objects: impl Iterator<Item = &'a Arc<K>>) {
    let plain = objects.filter_map(|object| {
        let mut object = serde_json::to_value(&**object).ok()?;
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.retain(|key, _| key != "managedFields" && key != "resourceVersion");
        }
        Some(object)
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
    use std::path::PathBuf;

    use super::*;

    fn objects() -> Objects {
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}, "spec": {"hostnames": ["a.example"]}});
        let routes = [Arc::new(serde_json::from_value(route).unwrap())];
        let labels = Arc::new(BTreeMap::from([("version".to_owned(), "1".to_owned())]));
        let pods = [(("shop".to_owned(), "web-1".to_owned()), labels)];
        Objects { routes: routes.into_iter().collect(), pods: pods.into_iter().collect(), ..Objects::default() }
    }

    fn kept(dir: PathBuf, secret: &str, hub: Option<&str>) -> Arc<LastGood> {
        Arc::new(LastGood { dir, seal: kept::Seal::new(secret.as_bytes()), hub: hub.map(Into::into) })
    }

    #[tokio::test]
    async fn objects_are_read_as_they_were_written_for_their_hub_and_site_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ours = kept(dir.path().to_owned(), "ours", Some("hub-1"));
        assert!(save(ours, "hub-1".into(), encode(&objects())).await);
        let file = std::fs::read(dir.path().join(FILE)).unwrap();
        assert!(!String::from_utf8_lossy(&file).contains("a.example"), "it can't be read without the key");
        let cases = [
            ("ours", "ours", Some("hub-1"), ""),
            ("hub not known yet", "ours", None, ""),
            ("another hub", "ours", Some("hub-2"), "is of hub `hub-1`"),
            ("another site", "theirs", None, "is not sealed with this site's key"),
        ];
        for (name, secret, hub, wrong) in cases {
            let read = decode(file.clone(), &kept(dir.path().to_owned(), secret, hub));
            assert_eq!(read.as_ref().err().map(ToString::to_string).unwrap_or_default(), wrong, "{name}");
            if let Ok(found) = read {
                let route = found.routes.get("shop", "web").unwrap();
                assert_eq!(route.spec.hostnames, ["a.example"], "{name}");
                assert_eq!(found.pods, objects().pods, "{name}");
                assert!(route.version.is_none(), "the same objects give the same bytes");
            }
        }
        assert_eq!(load(Some(&kept(dir.path().to_owned(), "ours", None))).await.unwrap().routes.len(), 1);
        assert!(load(Some(&kept(dir.path().join("none"), "ours", None))).await.is_none());
    }
}
