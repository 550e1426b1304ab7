//! What the engine asks of a registry, and the table of the kinds of registry that it knows.
//!
//! A new kind is one file with a type that implements [`Pull`] and [`Push`], and one row in [`BACKENDS`].
//! Source: OCI distribution specification 1.1.

pub mod memory;
pub mod oci;

use std::{pin::Pin, sync::Arc};

use atoll_reach::Connect;
use bytes::Bytes;
use futures::Stream;

use crate::{endpoint::Endpoint, error::Error, error::Why, manifest::Descriptor, name::Digest};

/// A stream of the bytes of a blob.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A manifest as a registry gave it, already checked against its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// What the `Content-Type` said.
    pub media_type: String,
    /// The hash of `body`.
    pub digest: Digest,
    /// The bytes, unchanged.
    pub body: Bytes,
}

/// Reads from a registry.
#[async_trait::async_trait]
pub trait Pull: Send + Sync {
    /// Where this is, for messages.
    fn endpoint(&self) -> &Endpoint;
    /// Reads a manifest by tag or digest and checks it against the digest.
    async fn manifest(&self, repository: &str, reference: &str) -> Result<RawManifest, Error>;
    /// What a tag or digest means; `None` if it isn't there.
    async fn resolve(&self, repository: &str, reference: &str) -> Result<Option<Descriptor>, Error>;
    /// The size of a blob; `None` if it isn't there.
    async fn stat(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, Error>;
    /// The bytes of a blob from `offset` on, unchecked: the caller hashes them.
    async fn blob(&self, repository: &str, digest: &Digest, offset: u64) -> Result<ByteStream, Error>;
    /// What refers to a manifest (signatures, bills of materials); empty where the registry can't tell.
    async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Vec<Descriptor>, Error>;
    /// All tags of a repository, over all pages.
    async fn tags(&self, repository: &str) -> Result<Vec<String>, Error>;
    /// All repositories, over all pages.
    async fn catalog(&self) -> Result<Vec<String>, Error>;
}

/// What became of the wish to upload a blob.
#[derive(Debug)]
pub enum Begun {
    /// Nothing to upload: the registry took the blob from another of its repositories.
    Mounted,
    /// An upload is open.
    Upload(Upload),
}

/// An upload session that a registry holds open.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The repository.
    pub repository: String,
    /// The blob.
    pub digest: Digest,
    /// Where the next request goes; the backend's own.
    pub location: String,
}

/// Writes to a registry, and reads back.
#[async_trait::async_trait]
pub trait Push: Pull {
    /// Opens an upload, or takes the blob from the repository `mount` of the same registry.
    async fn begin(&self, repository: &str, digest: &Digest, mount: Option<&str>) -> Result<Begun, Error>;
    /// Sends bytes `offset..offset + len` of the blob; `last` commits it under its digest. The session moves on only on success.
    async fn send(&self, upload: &mut Upload, offset: u64, len: u64, last: bool, body: ByteStream)
    -> Result<(), Error>;
    /// How many bytes the registry kept of an upload that broke; `None` if it forgot the session.
    async fn kept(&self, upload: &mut Upload) -> Result<Option<u64>, Error>;
    /// Gives an upload up, so that the registry frees its space.
    async fn abort(&self, upload: &Upload) -> Result<(), Error>;
    /// Writes a manifest under a tag or under its digest.
    async fn put_manifest(&self, repository: &str, reference: &str, manifest: &RawManifest) -> Result<(), Error>;
}

/// Makes a registry's client out of its endpoint and a connector.
pub type Open = fn(&Endpoint, Arc<dyn Connect>) -> Result<Arc<dyn Push>, Error>;

/// A row of the table: how a kind of registry is opened.
pub struct Backend {
    /// The word in `Registry.spec.backend`.
    pub name: &'static str,
    /// Opens it; sends nothing yet.
    pub open: Open,
}

/// Every kind of registry.
pub const BACKENDS: &[Backend] =
    &[Backend { name: "oci", open: oci::open }, Backend { name: "memory", open: memory::open }];

/// Opens `endpoint` by its row of [`BACKENDS`]; sends nothing yet.
///
/// # Errors
/// An unknown backend, or settings that contradict each other; a retry never helps.
pub fn open(endpoint: &Endpoint, connect: Arc<dyn Connect>) -> Result<Arc<dyn Push>, Error> {
    let Some(backend) = BACKENDS.iter().find(|b| b.name == endpoint.backend) else {
        let known: Vec<_> = BACKENDS.iter().map(|b| b.name).collect();
        let why = format!("unknown backend `{}`, want one of {}", endpoint.backend, known.join(", "));
        return Err(Error::new(endpoint.at("", ""), Why::Config(why)));
    };
    (backend.open)(endpoint, connect)
}
