//! The site's certificate: read from its Secret in the hub's API, kept in a file for starts without a hub.
//!
//! In: Secret `atoll-system/atoll-site-<kind>`, which the hub fills and renews; of a node-local DNS, Secret `atoll-system/atoll-names` of the
//! member's API, which its agent does. Out: a TLS identity, swapped when the Secret changes. The
//! file is readable by its owner alone and replaced by rename; beside the key it holds a secret of this site's own, with which its other files are
//! sealed, for as long as it is a site of the same hub. Never asks for a certificate: who may read the Secret is RBAC's matter.
//!
//! A Secret of another hub (made anew, under another CA) is kept for the next start and not followed: what is served was said by the old
//! hub, and members that have joined neither would be gone at once. Somebody has to want that.

use std::path::PathBuf;
use std::time::Duration;

use atoll_api::kinds::SYSTEM_NAMESPACE;
use atoll_reach::{Identity, Revocations, Role, TlsIdentity};
use atoll_wire::kept::{self, Seal};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const FILE: &str = "identity.json";
/// Between two looks at the Secret, once there is an identity.
const EVERY: Duration = Duration::from_secs(10);
/// And while there is none.
const SOON: Duration = Duration::from_millis(50);
const SOON_MAX: Duration = Duration::from_secs(2);
const READ_MAX: Duration = Duration::from_secs(10);

/// As the Secret and the file hold it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    chain: String,
    key: String,
    ca: String,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct InFile {
    #[serde(flatten)]
    held: Held,
    /// In Base64; files that older versions wrote have none.
    #[serde(default)]
    seal: String,
}

/// With which a site seals its files.
pub(crate) type Secrecy = [u8; 32];

/// The identity that is in use, once there is one.
pub(crate) type Current = watch::Receiver<Option<TlsIdentity>>;

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A DNS server's or gateway's.
    Site(&'static str),
    /// A node-local DNS's.
    Names,
}

impl Whose {
    fn word(self) -> &'static str {
        match self {
            Self::Site(kind) => kind,
            Self::Names => "node-local DNS",
        }
    }

    fn secret(self) -> String {
        match self {
            Self::Site(kind) => format!("atoll-site-{kind}"),
            Self::Names => atoll_agents::NAMES_SECRET.to_owned(),
        }
    }

    fn is(self, role: &Role) -> bool {
        match self {
            Self::Site(kind) => *role == Role::Site(kind.to_owned()),
            Self::Names => matches!(role, Role::Names(_)),
        }
    }
}

/// Keeps the identity current.
pub(super) struct Keeper {
    whose: Whose,
    client: Client,
    dir: Option<PathBuf>,
    revocations: Revocations,
    held: Option<Held>,
    /// Kept with what is held.
    secrecy: Secrecy,
    /// Whether the file holds it, too.
    is_kept: bool,
    out: watch::Sender<Option<TlsIdentity>>,
}

impl Keeper {
    pub(super) fn new(whose: Whose, client: Client, dir: Option<PathBuf>, revocations: Revocations) -> Self {
        let (held, secrecy, out) = (None, Seal::fresh_secret(), watch::Sender::new(None));
        Self { whose, client, dir, revocations, held, secrecy, is_kept: false, out }
    }

    /// Takes the identity of the file, if there is a good one.
    pub(super) async fn load(mut self) -> (Self, Current, Secrecy) {
        if let Some(file) = self.dir.as_ref().map(|dir| dir.join(FILE)) {
            // One that can't be read was not kept, or this is the first start.
            if let Ok(Ok(bytes)) = tokio::task::spawn_blocking(move || std::fs::read(&file)).await {
                match serde_json::from_slice(&bytes) {
                    Ok(InFile { held, seal }) => {
                        self.take(held);
                        let secrecy = BASE64_STANDARD.decode(&seal).ok().and_then(|octets| octets.try_into().ok());
                        self.is_kept = secrecy.is_some();
                        self.secrecy = secrecy.unwrap_or(self.secrecy);
                    }
                    Err(error) => tracing::warn!(%error, "kept certificate not used"),
                }
            }
        }
        let (current, secrecy) = (self.out.subscribe(), self.secrecy);
        (self, current, secrecy)
    }

    /// Follows the Secret until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let (mut soon, mut said) = (SOON, String::new());
        loop {
            let pause = match self.look().await {
                Ok(()) => {
                    said.clear();
                    EVERY
                }
                Err(why) => {
                    // Said once, not at every look.
                    if said != why {
                        tracing::info!(site = self.whose.word(), why, "certificate not read from its Secret yet");
                        said = why;
                    }
                    soon = (soon * 2).min(SOON_MAX);
                    if self.held.is_some() { EVERY } else { soon }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let name = self.whose.secret();
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let read = timeout(READ_MAX, secrets.get_opt(&name)).await.map_err(|_| "no answer in time".to_owned())?;
        let secret = read.map_err(|e| e.to_string())?;
        let secret = secret.ok_or_else(|| format!("secret {SYSTEM_NAMESPACE}/{name}: is not there yet"))?;
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            let found = data.get(key).and_then(|v| String::from_utf8(v.0.clone()).ok());
            found.ok_or_else(|| format!("secret {SYSTEM_NAMESPACE}/{name}: `{key}` is missing"))
        };
        let held = Held { chain: text("tls.crt")?, key: text("tls.key")?, ca: text("ca.crt")? };
        if self.held.as_ref() != Some(&held) {
            self.take(held);
            self.is_kept = false;
        }
        // A disk that was full may have room again.
        if !self.is_kept {
            self.keep().await;
        }
        Ok(())
    }

    fn take(&mut self, held: Held) {
        let parsed = Identity::from_pem(&held.chain, &held.key, &held.ca);
        let identity = match parsed {
            Ok(identity) if self.whose.is(identity.role()) => identity,
            Ok(other) => {
                return tracing::warn!(site = self.whose.word(), role = %other.role(), "certificate of another, not used");
            }
            Err(error) => return tracing::warn!(site = self.whose.word(), %error, "certificate not used"),
        };
        let current = self.out.borrow().clone();
        if let Some(old) = current.as_ref().map(TlsIdentity::bearer).filter(|old| old.hub != identity.bearer().hub) {
            let (ours, theirs) = (old.hub, &identity.bearer().hub);
            tracing::error!(
                site = self.whose.word(),
                "the certificate in the hub's API is of another hub, `{theirs}`: going on with what hub `{ours}` said; restart to follow the new one"
            );
            self.held = Some(held);
            // What was sealed for the old hub is not to be opened for the new one.
            self.secrecy = Seal::fresh_secret();
            return;
        }
        let shown = match current {
            Some(tls) => tls.swap(identity).map(|()| tls),
            None => TlsIdentity::new(identity, self.revocations.clone()),
        };
        match shown {
            Ok(tls) => {
                tracing::debug!(site = self.whose.word(), serial = %tls.bearer().serial, "certificate in use");
                self.held = Some(held);
                self.out.send_replace(Some(tls));
            }
            Err(error) => tracing::warn!(site = self.whose.word(), %error, "certificate not used"),
        }
    }

    async fn keep(&mut self) {
        let (Some(dir), Some(held)) = (self.dir.clone(), self.held.clone()) else { return };
        let file = InFile { held, seal: BASE64_STANDARD.encode(self.secrecy) };
        let write = move || kept::write(&dir, FILE, &serde_json::to_vec(&file)?);
        let written = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other).flatten();
        self.is_kept = written.is_ok();
        if let Err(error) = written {
            tracing::warn!(site = self.whose.word(), %error, "certificate not kept: a start without the hub's API would fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

    use super::*;

    /// A certificate of `site/dns` under a CA of this hub's.
    fn held(hub: &str) -> Held {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(params, ca_key);
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(Role::Site("dns".into()).uri(hub).try_into().unwrap())];
        Held { chain: leaf.signed_by(&key, &issuer).unwrap().pem(), key: key.serialize_pem(), ca }
    }

    /// One whose hub's API is nowhere.
    fn keeper(dir: &Path) -> Keeper {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is there"))
        });
        Keeper::new(Whose::Site("dns"), Client::new(nobody, "default"), Some(dir.to_owned()), Revocations::none())
    }

    #[tokio::test]
    async fn a_hub_made_anew_is_followed_from_the_next_start_on() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = || keeper(dir.path()).load();
        let bearer = |current: &Current| current.borrow().as_ref().map(|tls| tls.bearer().hub);
        let (mut first, current, secrecy) = keeper().await;
        assert_eq!(bearer(&current), None);
        for secret in ["old", "old", "new"] {
            first.take(held(secret));
            first.keep().await;
            assert_eq!(bearer(&current).as_deref(), Some("old"));
            let is_ours = keeper().await.2 == secrecy;
            assert_eq!(is_ours, secret == "old", "sealed files outlive renewals, and no change of the hub");
        }
        let (_second, current, _) = keeper().await;
        assert_eq!(bearer(&current).as_deref(), Some("new"));
    }

    #[tokio::test]
    async fn a_file_without_a_secret_of_the_site_is_written_anew_with_one() {
        let dir = tempfile::tempdir().unwrap();
        let before = serde_json::to_vec(&held("hub")).unwrap();
        std::fs::write(dir.path().join(FILE), before).unwrap();
        let (mut first, current, secrecy) = keeper(dir.path()).load().await;
        assert!(current.borrow().is_some() && !first.is_kept);
        first.keep().await;
        assert_eq!(keeper(dir.path()).load().await.2, secrecy);
    }
}
