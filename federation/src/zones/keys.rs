//! Keys of zones: TSIG keys as people wrote them, signing keys as the hub makes them. Both live in Secrets of `atoll-system`.
//!
//! In: a Zone and the Secrets. Out: what DNS servers are told, and what is missing. A TSIG Secret holds `secret` (base64, as `tsig-keygen`
//! and `keymgr` print it) and `algorithm`. The signing keys of Zone `z` are in Secret `atoll-dnssec-z`, one key `<generation>.p8`
//! (PKCS#8) for each generation; the hub adds those that are missing, and never changes or removes one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{SYSTEM_NAMESPACE, Zone};
use atoll_api::topology::{SigningKey, TsigKey, ZoneKeys};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::served;
use crate::error::Error;
use crate::objects::Objects;
use crate::pulse::Pulse;

/// RFC 8945 §6; the truncated and the old ones are not offered.
const ALGORITHMS: [&str; 3] = ["hmac-sha256", "hmac-sha384", "hmac-sha512"];
/// RFC 2104 §3: shorter keys are weaker than the hash.
const SECRET_BYTES_MIN: usize = 16;

/// The keys of a zone, and what is wrong with the others.
pub(super) fn of(objects: &Objects, zone: &Zone) -> (ZoneKeys, Vec<String>) {
    let secret = |name: &str| objects.secrets.get(&ObjectRef::new(name).within(SYSTEM_NAMESPACE));
    let (mut keys, mut faults) = (ZoneKeys::default(), Vec::new());
    for (name, at) in &zone.spec.tsig_keys {
        match secret(at).ok_or_else(|| "there is none".to_owned()).and_then(|s| tsig(&s)) {
            Ok(key) => drop(keys.tsig.insert(name.clone(), key)),
            Err(why) => faults.push(format!("TSIG key `{name}`: Secret {SYSTEM_NAMESPACE}/{at}: {why}")),
        }
    }
    if zone.spec.dnssec.enabled {
        let data = secret(&secret_name(zone)).and_then(|s| s.data.clone()).unwrap_or_default();
        let held = zone.spec.dnssec.generations().filter_map(|generation| {
            let key = data.get(&field(generation))?;
            Some(SigningKey { generation, pkcs8: STANDARD.encode(&key.0) })
        });
        keys.signing = held.collect();
        if keys.signing.is_empty() {
            faults.push("the signing key is not made yet".to_owned());
        }
    }
    (keys, faults)
}

fn tsig(secret: &Secret) -> Result<TsigKey, String> {
    let text = |field: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(field));
        value.and_then(|v| std::str::from_utf8(&v.0).ok()).map(|v| v.trim().to_owned())
    };
    let algorithm = text("algorithm").map_or_else(|| ALGORITHMS[0].to_owned(), |a| super::plain(&a));
    if !ALGORITHMS.contains(&algorithm.as_str()) {
        return Err(format!("algorithm `{algorithm}`: there are only {}", ALGORITHMS.join(", ")));
    }
    let secret = text("secret").ok_or("`secret` is missing")?;
    match STANDARD.decode(&secret) {
        Ok(octets) if octets.len() >= SECRET_BYTES_MIN => Ok(TsigKey { algorithm, secret }),
        Ok(_) => Err(format!("`secret` is shorter than {SECRET_BYTES_MIN} octets")),
        Err(_) => Err("`secret` is not base64".to_owned()),
    }
}

fn secret_name(zone: &Zone) -> String {
    format!("atoll-dnssec-{}", zone.name_any())
}

fn field(generation: u32) -> String {
    format!("{generation}.p8")
}

/// Makes the signing keys that are missing.
pub(crate) struct SigningKeys {
    pub(crate) client: Client,
    pub(crate) objects: Arc<Objects>,
}

impl SigningKeys {
    /// Runs until cancelled.
    pub(crate) async fn run(self) {
        let mut pulse = Pulse::new(vec![self.objects.changes()], Duration::from_secs(60));
        loop {
            for zone in served(&self.objects).into_iter().filter(|z| z.spec.dnssec.enabled) {
                let wanted = zone.spec.dnssec.generations().count();
                if of(&self.objects, &zone).0.signing.len() < wanted
                    && let Err(error) = self.complete(&zone).await
                {
                    tracing::warn!(zone = zone.name_any(), %error, "signing key not made");
                }
            }
            pulse.next().await;
        }
    }

    async fn complete(&self, zone: &Zone) -> Result<(), Error> {
        let name = secret_name(zone);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let held = secrets.get_opt(&name).await.map_err(Error::api(format!("read secret {name}")))?;
        let data = held.as_ref().and_then(|s| s.data.clone()).unwrap_or_default();
        let mut made = BTreeMap::new();
        for generation in zone.spec.dnssec.generations().filter(|g| !data.contains_key(&field(*g))) {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(|e| Error::Certificate(format!("zone {}", zone.spec.apex), e.to_string()))?;
            made.insert(field(generation), ByteString(key.serialize_der()));
            tracing::info!(zone = zone.spec.apex, generation, "signing key made");
        }
        if made.is_empty() {
            return Ok(());
        }
        match held {
            // With the version that was read: what somebody else made meanwhile is never overwritten.
            Some(held) => {
                let patch = json!({"metadata": {"resourceVersion": held.resource_version()}, "data": made});
                let patched = secrets.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
                patched.map(drop).map_err(Error::api(format!("write secret {name}")))
            }
            None => {
                let mut secret = Secret { data: Some(made), type_: Some("Opaque".into()), ..Secret::default() };
                secret.metadata.name = Some(name.clone());
                let created = secrets.create(&PostParams::default(), &secret).await;
                created.map(drop).map_err(Error::api(format!("create secret {name}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tsig_secret_is_taken_or_said_what_is_wrong() {
        for (algorithm, secret, says) in [
            (None, Some("c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g="), ""),
            (Some("HMAC-SHA512."), Some(" c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g=\n"), ""),
            (Some("hmac-md5"), Some("c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g="), "algorithm `hmac-md5`"),
            (None, None, "`secret` is missing"),
            (None, Some("c2hvcnQ="), "shorter than 16"),
            (None, Some("no base64!"), "not base64"),
        ] {
            let fields = [("algorithm", algorithm), ("secret", secret)];
            let data = fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), ByteString(v?.as_bytes().to_vec()))));
            let got = tsig(&Secret { data: Some(data.collect()), ..Secret::default() });
            match got {
                Ok(key) => assert!(says.is_empty() && key.algorithm.starts_with("hmac-sha"), "{}", key.algorithm),
                Err(why) => assert!(!says.is_empty() && why.contains(says), "{why}"),
            }
        }
    }
}
