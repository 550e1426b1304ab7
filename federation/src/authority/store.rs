//! The authority in its Secret: read, or made once.

use std::collections::BTreeMap;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};

use super::Authority;
use crate::error::{Error, is_conflict};

const NAME: &str = "atoll-hub-ca";

impl Authority {
    /// The authority of this API server; makes it where there is none. Two hubs that start at once end with the same one.
    pub(crate) async fn load_or_make(client: &Client, now: Timestamp) -> Result<Self, Error> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        if let Some(secret) = secrets.get_opt(NAME).await.map_err(Error::api("read the hub's CA"))? {
            return Self::from_secret(&secret);
        }
        let hub_id = hex::encode(rand::random::<[u8; 8]>());
        let (made, key) = Self::generate(&hub_id, now).map_err(|e| Error::Ca(e.to_string()))?;
        let fields = [("tls.crt", made.ca_pem()), ("tls.key", &key), ("hub-id", &hub_id)];
        let mut secret = Secret { data: Some(bytes(fields)), type_: Some("Opaque".into()), ..Secret::default() };
        secret.metadata.name = Some(NAME.into());
        match secrets.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(made),
            Err(e) if is_conflict(&e) => {
                Self::from_secret(&secrets.get(NAME).await.map_err(Error::api("read the hub's CA"))?)
            }
            Err(e) => Err(Error::api("store the hub's CA")(e)),
        }
    }

    fn from_secret(secret: &Secret) -> Result<Self, Error> {
        let text = |field: &str| {
            let value = secret.data.as_ref().and_then(|d| d.get(field));
            value.and_then(|v| std::str::from_utf8(&v.0).ok()).ok_or_else(|| Error::Ca(format!("`{field}` is missing")))
        };
        Self::from_pem(text("hub-id")?, text("tls.crt")?, text("tls.key")?).map_err(Error::Ca)
    }
}

pub(super) fn bytes<const N: usize>(fields: [(&str, &str); N]) -> BTreeMap<String, ByteString> {
    fields.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec()))).into()
}
