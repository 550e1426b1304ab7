//! Keys and certificates: of listeners, of ourselves towards backends, and the authorities that others are checked against.
//!
//! In: Secrets of type kubernetes.io/tls, ConfigMaps with `ca.crt`. Out: settings for TLS, made once and kept while a table uses them. A
//! new certificate that can't be used does not replace the one before. Never reads a file.

mod backend;
mod certificate;
mod server;
mod shown;
mod spoken;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::objects::{Name, Shelf, name_of};

pub(crate) use backend::{BackendCheck, BackendTls};
pub(crate) use certificate::{Authorities, Certificate};
pub(crate) use server::{Asks, ClientCheck};
pub(crate) use shown::Shown;
pub(crate) use spoken::Spoken;

/// Under which a ConfigMap holds authorities.
pub(crate) const AUTHORITY_KEY: &str = "ca.crt";

/// How TLS is spoken to servers that the machine trusts.
///
/// # Errors
/// The provider knows no version of TLS, a bug.
pub(crate) fn outside(roots: &RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots.clone()).with_no_client_auth()))
}

/// What became of a Secret, and its last certificate that could be used.
struct Known {
    data: Arc<Secret>,
    now: Result<Arc<Certificate>, String>,
    good: Option<Arc<Certificate>>,
}

type Bundle = (Option<String>, Result<Arc<Authorities>, String>);

/// Everything made so far; settings are known for as long as somebody uses them.
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
    pub(crate) fn load(
        &mut self,
        secret: &Arc<Secret>,
    ) -> Result<Arc<Certificate>, (String, Option<Arc<Certificate>>)> {
        let at = name_of(&**secret);
        let same = |k: &Known| Arc::ptr_eq(&k.data, secret) || k.data.data == secret.data;
        let fresh = self.certificates.get(&at).is_some_and(same);
        if !fresh {
            let now = Certificate::parse(secret, &self.provider).map(Arc::new);
            let good = now.as_ref().ok().cloned().or_else(|| self.certificates.remove(&at).and_then(|k| k.good));
            self.certificates.insert(at.clone(), Known { data: Arc::clone(secret), now, good });
        }
        let known = &self.certificates[&at];
        known.now.clone().map_err(|why| (why, known.good.clone()))
    }

    /// The authorities in a Secret.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn vouching(&self, secret: &Secret) -> Result<Arc<Authorities>, String> {
        let pem = secret.data.as_ref().and_then(|data| data.get(AUTHORITY_KEY));
        let pem = pem.ok_or_else(|| format!("has no `{AUTHORITY_KEY}`"))?;
        let text = std::str::from_utf8(&pem.0).map_err(|_| format!("{AUTHORITY_KEY}: it is no text"))?;
        Authorities::parse(text).map(Arc::new)
    }

    /// The authorities in a ConfigMap.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn authorities(&mut self, map: &ConfigMap) -> Result<Arc<Authorities>, String> {
        let pem = map.data.as_ref().and_then(|data| data.get(AUTHORITY_KEY));
        let at = name_of(map);
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
    pub(crate) fn retain(&mut self, secrets: &Shelf<Secret>, maps: &Shelf<ConfigMap>) {
        self.certificates.retain(|at, _| secrets.at(at).is_some());
        self.authorities.retain(|at, _| maps.at(at).is_some());
    }

    /// Forgets a Secret that is gone.
    pub(crate) fn forget(&mut self, secret: &Name) {
        self.certificates.remove(secret);
    }

    /// How TLS is spoken to clients of a listener; `http`: HTTP follows. Nothing if the provider refuses, a bug.
    pub(crate) fn server(
        &mut self,
        certificates: &[Arc<Certificate>],
        spoken: &Spoken,
        http: bool,
        clients: Option<&ClientCheck>,
    ) -> Option<Arc<ServerConfig>> {
        let (provider, tickets) = (spoken.provider(&self.provider), &self.tickets);
        let make = || server::make((&provider, spoken), tickets.clone(), certificates, http, clients);
        self.servers.get(server::key(certificates, spoken, http, clients), make).ok()
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

    /// Forgets settings that nobody uses any more.
    pub(crate) fn sweep(&mut self) {
        self.servers.sweep();
        self.backends.sweep();
    }
}

/// Settings by what makes them, for as long as somebody uses them.
struct Kept<T> {
    all: HashMap<String, Weak<T>>,
    /// With so many it is worth looking which are used.
    sweep_at: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), sweep_at: 64 }
    }
}

impl<T> Kept<T> {
    fn get(&mut self, key: String, make: impl FnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        if let Some(known) = self.all.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let made = Arc::new(make()?);
        self.all.insert(key, Arc::downgrade(&made));
        if self.all.len() >= self.sweep_at {
            self.sweep();
            self.sweep_at = 2 * self.all.len().max(32);
        }
        Ok(made)
    }

    fn sweep(&mut self) {
        self.all.retain(|_, used| used.strong_count() > 0);
    }
}
