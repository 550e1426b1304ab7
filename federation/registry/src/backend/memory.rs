//! A registry in memory: for tests and for servers that show it over HTTP.
//!
//! A [`Store`] knows repositories, tags, manifests and blobs, and checks every digest; blobs are shared among repositories.
//! `memory:NAME` opens the store that somebody made by [`Store::named`] and still holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};

use super::{Begun, ByteStream, Pull, Push, RawManifest, Upload};
use atoll_reach::Connect;

use crate::{
    endpoint::Endpoint,
    error::{Error, Why},
    manifest::Descriptor,
    name::Digest,
};

/// Pieces that a blob is streamed in.
const PIECE_BYTES: usize = 64 << 10;
/// Uploads that nobody ended: of more than this many the oldest is dropped.
const UPLOADS_MAX: usize = 256;

static NAMED: LazyLock<Mutex<BTreeMap<String, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// Repositories, tags, manifests and blobs.
#[derive(Default)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    blobs: BTreeMap<Digest, Bytes>,
    repositories: BTreeMap<String, Repository>,
    uploads: BTreeMap<u64, BytesMut>,
    next_upload: u64,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, RawManifest>,
    tags: BTreeMap<String, Digest>,
}

impl Store {
    /// Makes a store that `memory:NAME` finds for as long as somebody holds it.
    pub fn named(name: &str) -> Arc<Self> {
        let store = Arc::new(Self::default());
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, weak| weak.strong_count() > 0);
        named.insert(name.to_owned(), Arc::downgrade(&store));
        store
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a blob into a repository and returns its digest.
    pub fn put_blob(&self, repository: &str, body: Bytes) -> Digest {
        let digest = Digest::of(&body);
        let mut inner = self.lock();
        inner.blobs.insert(digest.clone(), body);
        inner.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone());
        digest
    }

    /// A blob of a repository.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        let inner = self.lock();
        inner.repositories.get(repository).filter(|r| r.blobs.contains(digest))?;
        inner.blobs.get(digest).cloned()
    }

    /// Replaces a blob's bytes without asking whether they fit: for tests of what must then happen.
    pub fn corrupt_blob(&self, digest: &Digest, body: Bytes) {
        self.lock().blobs.insert(digest.clone(), body);
    }

    /// Takes a blob over from another repository; false if it isn't there.
    pub fn mount(&self, repository: &str, digest: &Digest, from: &str) -> bool {
        let mut inner = self.lock();
        let there = inner.repositories.get(from).is_some_and(|r| r.blobs.contains(digest));
        if there {
            inner.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone());
        }
        there
    }

    /// Writes a manifest under its digest and, where given, a tag.
    ///
    /// # Errors
    /// The first digest that it refers to and that is missing in the repository.
    pub fn put_manifest(&self, repository: &str, tag: Option<&str>, manifest: RawManifest) -> Result<(), String> {
        let refers = crate::manifest::references(&manifest.media_type, &manifest.body)?;
        let mut inner = self.lock();
        let repo = inner.repositories.entry(repository.to_owned()).or_default();
        let missing = refers.manifests.iter().find(|d| !repo.manifests.contains_key(&d.digest));
        if let Some(d) = missing.or_else(|| refers.blobs.iter().find(|d| !repo.blobs.contains(&d.digest))) {
            return Err(format!("blob unknown: {}", d.digest));
        }
        if let Some(tag) = tag {
            repo.tags.insert(tag.to_owned(), manifest.digest.clone());
        }
        repo.manifests.insert(manifest.digest.clone(), manifest);
        Ok(())
    }

    /// A manifest by tag or digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<RawManifest> {
        let inner = self.lock();
        let repo = inner.repositories.get(repository)?;
        let by_digest = reference.parse().ok();
        repo.manifests.get(by_digest.as_ref().or_else(|| repo.tags.get(reference))?).cloned()
    }

    /// Manifests of a repository whose `subject` is `digest`.
    pub fn referrers(&self, repository: &str, digest: &Digest) -> Vec<Descriptor> {
        #[derive(serde::Deserialize)]
        struct Doc {
            subject: Option<Descriptor>,
        }
        let inner = self.lock();
        let Some(repo) = inner.repositories.get(repository) else { return Vec::new() };
        let refers = |m: &&RawManifest| {
            serde_json::from_slice::<Doc>(&m.body).ok().and_then(|d| d.subject).is_some_and(|s| s.digest == *digest)
        };
        repo.manifests.values().filter(refers).map(descriptor).collect()
    }

    /// The tags of a repository, sorted; `None` if there is no such repository.
    pub fn tags(&self, repository: &str) -> Option<Vec<String>> {
        self.lock().repositories.get(repository).map(|r| r.tags.keys().cloned().collect())
    }

    /// The repositories, sorted.
    pub fn repositories(&self) -> Vec<String> {
        self.lock().repositories.keys().cloned().collect()
    }

    /// Opens an upload.
    pub fn upload_begin(&self) -> u64 {
        let mut inner = self.lock();
        if inner.uploads.len() >= UPLOADS_MAX {
            inner.uploads.pop_first();
        }
        inner.next_upload += 1;
        let id = inner.next_upload;
        inner.uploads.insert(id, BytesMut::new());
        id
    }

    /// Adds to an upload; returns its length, or `None` if there is no such upload.
    pub fn upload_write(&self, id: u64, piece: &[u8]) -> Option<u64> {
        let mut inner = self.lock();
        let body = inner.uploads.get_mut(&id)?;
        body.extend_from_slice(piece);
        Some(body.len() as u64)
    }

    /// The length of an upload.
    pub fn upload_len(&self, id: u64) -> Option<u64> {
        self.lock().uploads.get(&id).map(|b| b.len() as u64)
    }

    /// Forgets an upload; false if there is none.
    pub fn upload_abort(&self, id: u64) -> bool {
        self.lock().uploads.remove(&id).is_some()
    }

    /// How many uploads are open.
    pub fn uploads_open(&self) -> usize {
        self.lock().uploads.len()
    }

    /// Ends an upload: its bytes become the blob `digest`.
    ///
    /// # Errors
    /// There is no such upload, or its bytes are not what `digest` says (they are dropped).
    pub fn upload_commit(&self, id: u64, repository: &str, digest: &Digest) -> Result<(), String> {
        let body = self.lock().uploads.remove(&id).ok_or("no such upload")?.freeze();
        // hashed without the lock: other uploads go on
        if !digest.matches(&body) {
            return Err(format!("the uploaded bytes are not {digest}"));
        }
        let mut inner = self.lock();
        inner.blobs.insert(digest.clone(), body);
        inner.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone());
        Ok(())
    }
}

fn descriptor(m: &RawManifest) -> Descriptor {
    Descriptor {
        media_type: m.media_type.clone(),
        digest: m.digest.clone(),
        size: m.body.len() as u64,
        urls: Vec::new(),
    }
}

struct Memory {
    endpoint: Endpoint,
    store: Arc<Store>,
}

/// The row's constructor.
pub(super) fn open(endpoint: &Endpoint, _: Arc<dyn Connect>) -> Result<Arc<dyn Push>, Error> {
    let store = NAMED.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint.url.path()).and_then(Weak::upgrade);
    let Some(store) = store else {
        let why = format!("no store named `{}` in memory", endpoint.url.path());
        return Err(Error::new(endpoint.at("", ""), Why::Config(why)));
    };
    Ok(Arc::new(Memory { endpoint: endpoint.clone(), store }))
}

impl Memory {
    fn missing(&self, repository: &str, reference: &str) -> Error {
        Error::new(self.endpoint.at(repository, reference), Why::NotFound)
    }

    fn upload(&self, upload: &Upload) -> Result<u64, Error> {
        upload.location.parse().map_err(|_| self.missing(&upload.repository, upload.digest.as_str()))
    }
}

#[async_trait::async_trait]
impl Pull for Memory {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Result<RawManifest, Error> {
        self.store.manifest(repository, reference).ok_or_else(|| self.missing(repository, reference))
    }

    async fn resolve(&self, repository: &str, reference: &str) -> Result<Option<Descriptor>, Error> {
        Ok(self.store.manifest(repository, reference).map(|m| descriptor(&m)))
    }

    async fn stat(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, Error> {
        Ok(self.store.blob(repository, digest).map(|b| b.len() as u64))
    }

    async fn blob(&self, repository: &str, digest: &Digest, offset: u64) -> Result<ByteStream, Error> {
        let mut body = self.store.blob(repository, digest).ok_or_else(|| self.missing(repository, digest.as_str()))?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
        let mut rest = body.split_off(offset);
        Ok(Box::pin(stream::iter(std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(PIECE_BYTES))))
        }))))
    }

    async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        Ok(self.store.referrers(repository, digest))
    }

    async fn tags(&self, repository: &str) -> Result<Vec<String>, Error> {
        self.store.tags(repository).ok_or_else(|| self.missing(repository, ""))
    }

    async fn catalog(&self) -> Result<Vec<String>, Error> {
        Ok(self.store.repositories())
    }
}

#[async_trait::async_trait]
impl Push for Memory {
    async fn begin(&self, repository: &str, digest: &Digest, mount: Option<&str>) -> Result<Begun, Error> {
        if mount.is_some_and(|from| self.store.mount(repository, digest, from)) {
            return Ok(Begun::Mounted);
        }
        let location = self.store.upload_begin().to_string();
        Ok(Begun::Upload(Upload { repository: repository.to_owned(), digest: digest.clone(), location }))
    }

    async fn send(&self, upload: &mut Upload, _: u64, _: u64, last: bool, mut body: ByteStream) -> Result<(), Error> {
        let id = self.upload(upload)?;
        while let Some(piece) = body.next().await {
            self.store
                .upload_write(id, &piece?)
                .ok_or_else(|| self.missing(&upload.repository, upload.digest.as_str()))?;
        }
        if last {
            let at = self.endpoint.at(&upload.repository, upload.digest.as_str());
            self.store
                .upload_commit(id, &upload.repository, &upload.digest)
                .map_err(|e| Error::new(at, Why::Corrupt(e)))?;
        }
        Ok(())
    }

    async fn kept(&self, upload: &mut Upload) -> Result<Option<u64>, Error> {
        Ok(self.store.upload_len(self.upload(upload)?))
    }

    async fn abort(&self, upload: &Upload) -> Result<(), Error> {
        self.store.upload_abort(self.upload(upload)?);
        Ok(())
    }

    async fn put_manifest(&self, repository: &str, reference: &str, manifest: &RawManifest) -> Result<(), Error> {
        let tag = reference.parse::<Digest>().is_err().then_some(reference);
        let at = self.endpoint.at(repository, reference);
        self.store.put_manifest(repository, tag, manifest.clone()).map_err(|e| Error::new(at, Why::Malformed(e)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_uploads_the_oldest_is_dropped() {
        let store = Store::default();
        let first = store.upload_begin();
        let second = store.upload_begin();
        for _ in 2..=UPLOADS_MAX {
            store.upload_begin();
        }
        assert_eq!(store.uploads_open(), UPLOADS_MAX);
        assert_eq!((store.upload_write(first, b"x"), store.upload_write(second, b"x")), (None, Some(1)));
    }
}
