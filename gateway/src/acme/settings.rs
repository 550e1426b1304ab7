//! What is told of the CA, and how certificates are to be. Pure.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;

/// How keys of certificates are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
}

/// How hosts are proven to be ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Proving {
    /// http-01: every replica answers at port 80.
    #[default]
    Http,
    /// dns-01: a record, which others hear of within this time after the hub's DNS servers give it.
    Dns(Duration),
}

/// The account that exists at the CA already, to which ours is bound (RFC 8555 §7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its name.
    pub key_id: String,
    /// The key for the MAC.
    pub key: BindingKey,
}

/// Where the key of a [`Binding`] is.
#[derive(Clone, PartialEq, Eq)]
pub enum BindingKey {
    /// Here.
    Here(Vec<u8>),
    /// In a Secret of the hub's API, by namespace and name: under `key`, in base64url as CAs hand it out.
    Secret(String, String),
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A CA, and what it is asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The URL of its directory.
    pub directory: String,
    /// Where it reaches people: `mailto:` URLs.
    pub contact: Vec<String>,
    /// Whom its server's certificate is checked against; nothing: whom the machine trusts.
    pub roots: Option<Arc<RootCertStore>>,
    /// An account elsewhere that ours belongs to.
    pub binding: Option<Binding>,
    /// Which of the CA's kinds of certificate; nothing: its default.
    pub profile: Option<String>,
    /// How keys of certificates are made.
    pub key: KeyType,
    /// How hosts are proven to be ours.
    pub proving: Proving,
}
