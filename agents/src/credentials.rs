//! The agent's credentials, kept in the Secret `atoll-system/atoll-agent` of its member and nowhere else.
//!
//! In and out: [`Credentials`]. Beside certificate and key it holds what must outlive a restart: the newest epoch obeyed
//! (fencing) and the sites to keep relays to (so that a member stays reachable when the agent restarts while the hub is dead).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_api::kinds::{FIELD_MANAGER, SYSTEM_NAMESPACE};
use atoll_api::names::ClusterName;
use atoll_api::topology::Site;
use atoll_reach::{Identity, Role};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use kube::core::ObjectMeta;

use crate::error::AgentError;
use crate::namespace;

/// The Secret's name.
pub(crate) const SECRET: &str = "atoll-agent";

/// Who this agent is, and what it must remember.
#[derive(Clone)]
pub struct Credentials {
    /// The member's name in the federation.
    pub cluster: ClusterName,
    /// `host:port` of the hub.
    pub hub: String,
    /// The hub's id.
    pub hub_id: String,
    /// Certificate chain, PEM, leaf first.
    pub chain_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// The hub's CA, PEM.
    pub ca_pem: String,
    /// The newest epoch obeyed.
    pub epoch: u64,
    /// Where relays were last kept to.
    pub sites: Vec<Site>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("cluster", &self.cluster).field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The identity that they hold.
    pub(crate) fn identity(&self) -> Result<Identity, AgentError> {
        self.parse().map_err(AgentError::Stored)
    }

    /// The same of credentials that are not stored yet; in words why they are no good.
    pub(crate) fn parse(&self) -> Result<Identity, String> {
        let identity = Identity::from_pem(&self.chain_pem, &self.key_pem, &self.ca_pem).map_err(|e| e.to_string())?;
        if identity.role() != &Role::Cluster(self.cluster.to_string()) {
            return Err(format!("the certificate is for {}, not `{}`", identity.role(), self.cluster));
        }
        Ok(identity)
    }

    /// What the member holds; nothing if it never joined.
    ///
    /// # Errors
    /// When the member's API can't be asked, or what it holds is broken.
    pub async fn load(client: &kube::Client) -> Result<Option<Self>, AgentError> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        let found = secrets.get_opt(SECRET).await.map_err(AgentError::member("reading the agent's Secret"))?;
        let Some(data) = found.and_then(|secret| secret.data) else { return Ok(None) };
        if !data.contains_key("tls.key") {
            return Ok(None);
        }
        let text = |key: &str| {
            let bytes = data.get(key).map(|b| b.0.as_slice()).unwrap_or_default();
            String::from_utf8(bytes.to_vec()).map_err(|_| AgentError::Stored(format!("`{key}` is not text")))
        };
        let cluster = text("cluster")?;
        let sites = text("sites")?;
        Ok(Some(Self {
            cluster: cluster.parse().map_err(|e| AgentError::Stored(format!("`cluster`: {e}")))?,
            hub: text("hub")?,
            hub_id: text("hub-id")?,
            chain_pem: text("tls.crt")?,
            key_pem: text("tls.key")?,
            ca_pem: text("ca.crt")?,
            // A missing epoch must not open the fence: absent is 0 only for those who never had one.
            epoch: match text("epoch")?.as_str() {
                "" => 0,
                epoch => epoch.parse().map_err(|_| AgentError::Stored("`epoch` is not a number".to_owned()))?,
            },
            sites: serde_json::from_str(&sites).unwrap_or_default(),
        }))
    }

    /// Writes them into the member, bringing the namespace if it is missing.
    ///
    /// # Errors
    /// When the member's API refuses or can't be reached.
    pub async fn save(&self, client: &kube::Client) -> Result<(), AgentError> {
        namespace::bring(client, SYSTEM_NAMESPACE).await?;
        let sites = serde_json::to_string(&self.sites).expect("sites are plain JSON");
        let data: BTreeMap<String, ByteString> = [
            ("cluster", self.cluster.to_string()),
            ("hub", self.hub.clone()),
            ("hub-id", self.hub_id.clone()),
            ("tls.crt", self.chain_pem.clone()),
            ("tls.key", self.key_pem.clone()),
            ("ca.crt", self.ca_pem.clone()),
            ("epoch", self.epoch.to_string()),
            ("sites", sites),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
        .collect();
        let metadata = ObjectMeta {
            name: Some(SECRET.to_owned()),
            namespace: Some(SYSTEM_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
        secrets
            .patch(SECRET, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&secret))
            .await
            .map_err(AgentError::member("writing the agent's Secret"))?;
        Ok(())
    }
}

/// What several tasks read and write of the credentials. Written to the member under one lock, so that no write undoes another.
#[derive(Clone)]
pub(crate) struct Shared {
    now: Arc<Mutex<Credentials>>,
    writing: Arc<tokio::sync::Mutex<()>>,
    client: kube::Client,
}

impl Shared {
    pub(crate) fn new(credentials: Credentials, client: kube::Client) -> Self {
        Self { now: Arc::new(Mutex::new(credentials)), writing: Arc::default(), client }
    }

    pub(crate) fn get(&self) -> Credentials {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes them here and in the member. Where that fails, nothing has changed here either.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Credentials)) -> Result<(), AgentError> {
        let _writing = self.writing.lock().await;
        let mut next = self.get();
        change(&mut next);
        next.save(&self.client).await?;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}
