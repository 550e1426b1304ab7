//! Where a registry is and how it is spoken to.

pub use atoll_api::copy::Credentials;
use url::Url;

use crate::{
    error::{At, Error, Why},
    name::Digest,
};

/// A registry as a job sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://host:port`, `https://host[:port]`, optionally with a path prefix; `memory:NAME` for the backend `memory`.
    pub url: Url,
    /// Allows plain HTTP and, over HTTPS, any certificate. An `http:` URL without it is refused.
    pub insecure: bool,
    /// A row of [`crate::backend::BACKENDS`].
    pub backend: String,
    /// Sent only to this host and to token services of `token_hosts`.
    pub credentials: Option<Credentials>,
    /// Certificates (PEM) that sign for this registry; without them the system's count.
    pub ca_pem: Option<Vec<u8>>,
    /// Further hosts, as `host` or `host:port`, whose token services may see the credentials.
    pub token_hosts: Vec<String>,
}

impl Endpoint {
    /// An `oci` registry at `url`, insecure if and only if that is `http:`, without credentials.
    ///
    /// # Errors
    /// The text is no URL with a host.
    pub fn new(url: &str) -> Result<Self, Error> {
        let bad = |why: String| Error::new(At { registry: url.to_owned(), ..At::default() }, Why::Config(why));
        let parsed = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        let backend = if parsed.scheme() == "memory" { "memory" } else { "oci" };
        if backend == "oci" && parsed.host_str().is_none() {
            return Err(bad("no host".to_owned()));
        }
        let insecure = parsed.scheme() == "http";
        let backend = backend.to_owned();
        Ok(Self { url: parsed, insecure, backend, credentials: None, ca_pem: None, token_hosts: Vec::new() })
    }

    /// The same with these credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Host and port as messages name them.
    pub fn name(&self) -> String {
        match (self.url.host_str(), self.url.port_or_known_default()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => self.url.as_str().to_owned(),
        }
    }

    /// The place of a repository and reference in this registry.
    pub fn at(&self, repository: &str, reference: &str) -> At {
        At { registry: self.name(), repository: repository.to_owned(), reference: reference.to_owned() }
    }
}

/// One image of a job, frozen: what it was resolved to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Root {
    /// The repository at the source.
    pub repository: String,
    /// The repository at the destination; the same name in most jobs.
    pub to_repository: String,
    /// The tag, where one was asked for; it is written at the destination, last.
    pub tag: Option<String>,
    /// The manifest or index.
    pub digest: Digest,
}
