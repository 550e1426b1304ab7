//! Keys and certificates: of listeners, of ourselves towards backends, and the authorities that others are checked against.
//!
//! In: Secrets of type kubernetes.io/tls, ConfigMaps with `ca.crt`. Out: settings for TLS, made once and kept while a table uses them. A
//! new certificate that can't be used does not replace the one before. Never reads a file.

mod backend;
mod certificate;
mod server;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub(crate) use backend::{BackendCheck, BackendTls};
pub(crate) use certificate::{Authorities, Certificate};
pub(crate) use server::ClientCheck;

/// Under which a ConfigMap holds authorities.
pub(crate) const AUTHORITY_KEY: &str = "ca.crt";

/// What became of a Secret, and its last certificate that could be used.
struct Known {
    data: Secret,
    now: Result<Arc<Certificate>, String>,
    good: Option<Arc<Certificate>>,
}

type Name = (Option<String>, String);
type Bundle = (Option<String>, Result<Arc<Authorities>, String>);

/// Everything made so far: what the last table did not use is forgotten.
pub(crate) struct Keys {
    provider: Arc<CryptoProvider>,
    /// Whom the machine trusts.
    system: Arc<RootCertStore>,
    certificates: HashMap<Name, Known>,
    authorities: HashMap<Name, Bundle>,
    servers: Kept<ServerConfig>,
    backends: Kept<ClientConfig>,
    tickets: Option<Arc<dyn rustls::server::ProducesTickets>>,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(Arc::new(RootCertStore::empty()))
    }
}

impl Keys {
    /// `system`: whom the machine trusts.
    pub(crate) fn new(system: Arc<RootCertStore>) -> Self {
        Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            system,
            certificates: HashMap::new(),
            authorities: HashMap::new(),
            servers: Kept::default(),
            backends: Kept::default(),
            // Without tickets every handshake is a whole one.
            tickets: rustls::crypto::aws_lc_rs::Ticketer::new().ok(),
        }
    }

    /// Whether the machine trusts anybody.
    pub(crate) fn trust_system(&self) -> bool {
        !self.system.is_empty()
    }

    /// The certificate in a Secret.
    ///
    /// # Errors
    /// What is wrong with it, and the one before if there is one.
    pub(crate) fn load(&mut self, secret: &Secret) -> Result<Arc<Certificate>, (String, Option<Arc<Certificate>>)> {
        let at = (secret.namespace(), secret.name_any());
        let fresh = self.certificates.get(&at).is_some_and(|k| k.data.data == secret.data);
        if !fresh {
            let now = Certificate::parse(secret, &self.provider).map(Arc::new);
            let good = now.as_ref().ok().cloned().or_else(|| self.certificates.remove(&at).and_then(|k| k.good));
            self.certificates.insert(at.clone(), Known { data: secret.clone(), now, good });
        }
        let known = &self.certificates[&at];
        known.now.clone().map_err(|why| (why, known.good.clone()))
    }

    /// The authorities in a ConfigMap.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn authorities(&mut self, map: &ConfigMap) -> Result<Arc<Authorities>, String> {
        let pem = map.data.as_ref().and_then(|data| data.get(AUTHORITY_KEY));
        let at = (map.namespace(), map.name_any());
        let known = self.authorities.get(&at).filter(|(seen, _)| seen.as_ref() == pem);
        if let Some((_, known)) = known {
            return known.clone();
        }
        let parsed = pem.ok_or_else(|| format!("has no `{AUTHORITY_KEY}`")).and_then(|pem| Authorities::parse(pem));
        let parsed = parsed.map(Arc::new);
        self.authorities.insert(at, (pem.cloned(), parsed.clone()));
        parsed
    }

    /// Forgets Secrets and ConfigMaps that are gone.
    pub(crate) fn retain(&mut self, secrets: &[Arc<Secret>], maps: &[Arc<ConfigMap>]) {
        let there: HashSet<Name> = secrets.iter().map(|s| (s.namespace(), s.name_any())).collect();
        self.certificates.retain(|at, _| there.contains(at));
        let there: HashSet<Name> = maps.iter().map(|m| (m.namespace(), m.name_any())).collect();
        self.authorities.retain(|at, _| there.contains(at));
    }

    /// How TLS is spoken to clients of a listener; `http`: HTTP follows. Nothing if the provider refuses, a bug.
    pub(crate) fn server(
        &mut self,
        certificates: &[Arc<Certificate>],
        http: bool,
        clients: Option<&ClientCheck>,
    ) -> Option<Arc<ServerConfig>> {
        let (provider, tickets) = (&self.provider, &self.tickets);
        let make = || server::make(provider, tickets.clone(), certificates, http, clients);
        self.servers.get(server::key(certificates, http, clients), make).ok()
    }

    /// How TLS is spoken to endpoints; `protocol` as ALPN has it.
    ///
    /// # Errors
    /// Why it can't be spoken at all.
    pub(crate) fn backend(
        &mut self,
        check: &BackendCheck,
        client: Option<&Arc<Certificate>>,
        protocol: Option<&str>,
    ) -> Result<Arc<BackendTls>, String> {
        let id = check.key(client, protocol);
        let (provider, system) = (&self.provider, &self.system);
        let config = self.backends.get(id.clone(), || check.config(provider, system, client, protocol))?;
        BackendTls::new(id, config, &check.name).map(Arc::new)
    }

    /// Forgets what no listener and no backend asked for since the last time.
    pub(crate) fn sweep(&mut self) {
        self.servers.sweep();
        self.backends.sweep();
    }
}

/// Settings by what makes them, and whether they were asked for.
struct Kept<T> {
    all: HashMap<String, (Arc<T>, bool)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { all: HashMap::new() }
    }
}

impl<T> Kept<T> {
    fn get(&mut self, key: String, make: impl FnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        if let Some((known, used)) = self.all.get_mut(&key) {
            *used = true;
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(make()?);
        self.all.insert(key, (Arc::clone(&made), true));
        Ok(made)
    }

    fn sweep(&mut self) {
        self.all.retain(|_, (_, used)| std::mem::take(used));
    }
}
