//! A registry by the OCI distribution specification 1.1, over HTTP or HTTPS.
//!
//! Reads and writes as [`Pull`] and [`Push`] ask; follows redirects of reads, without credentials to another host; follows `Link`
//! pages to their end. Never holds a blob in memory, never retries: [`crate::retry`] does.

mod auth;
mod client;
mod transport;

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Deserialize;
use url::Url;

use self::client::{Client, Expect, READ_TIMEOUT};
use super::{Begun, ByteStream, Pull, Push, RawManifest, Upload};
use atoll_reach::Connect;

use crate::{
    endpoint::Endpoint,
    error::{Error, Why, innermost},
    manifest::{ACCEPT, Descriptor, MANIFEST_BYTES_MAX, OCI_INDEX},
    name::Digest,
};

/// How many pages of a listing we read at most.
const PAGES_MAX: usize = 1000;
/// How many entries we ask for a page.
const PAGE_ENTRIES: usize = 1000;
/// Largest page of a listing.
const PAGE_BYTES_MAX: usize = 8 << 20;

struct Oci {
    client: Client,
}

/// The row's constructor.
pub(super) fn open(endpoint: &Endpoint, connect: Arc<dyn Connect>) -> Result<Arc<dyn Push>, Error> {
    Ok(Arc::new(Oci { client: Client::new(endpoint, connect)? }))
}

impl Oci {
    fn error(&self, repository: &str, reference: &str, why: Why) -> Error {
        Error::new(self.client.endpoint.at(repository, reference), why)
    }

    /// Reads `path` and the pages that follow it.
    async fn pages<T, F>(&self, path: &str, repository: &str, scope: String, mut take: F) -> Result<Vec<T>, Error>
    where
        F: FnMut(&[u8]) -> Result<Vec<T>, serde_json::Error> + Send,
        T: Send,
    {
        let err = |why| self.error(repository, "", why);
        let mut url = self.client.url(path).map_err(err)?;
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let ask = Expect::new(Method::GET, url.clone(), &[StatusCode::OK]).scope(scope.clone());
            let answer = self.client.call(ask).await.map_err(err)?;
            let next = next_page(answer.headers(), &url);
            let body = self.client.body(answer, PAGE_BYTES_MAX).await.map_err(err)?;
            all.extend(take(&body).map_err(|e| err(Why::Malformed(e.to_string())))?);
            match next {
                // the next page may not lead away from the registry that we trust with our credentials
                Some(next) if next.origin() == url.origin() && next != url => url = next,
                Some(next) => return Err(err(Why::Malformed(format!("next page at `{next}`")))),
                None => return Ok(all),
            }
        }
        Err(err(Why::Unsupported(format!("a listing of more than {PAGES_MAX} pages"))))
    }
}

fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

/// The target of `Link: <…>; rel="next"`.
fn next_page(headers: &http::HeaderMap, base: &Url) -> Option<Url> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then(|| base.join(target).ok())?
}

#[async_trait::async_trait]
impl Pull for Oci {
    fn endpoint(&self) -> &Endpoint {
        &self.client.endpoint
    }

    async fn manifest(&self, repository: &str, reference: &str) -> Result<RawManifest, Error> {
        let err = |why| self.error(repository, reference, why);
        let url = self.client.url(&format!("{repository}/manifests/{reference}")).map_err(err)?;
        let ask = Expect::new(Method::GET, url, &[StatusCode::OK])
            .scope(pull_scope(repository))
            .header(header::ACCEPT, ACCEPT);
        let answer = self.client.call(ask).await.map_err(err)?;
        let media_type = client::text(answer.headers(), &header::CONTENT_TYPE).unwrap_or_default();
        let claimed: Option<Digest> = client::digest(answer.headers());
        let body = self.client.body(answer, MANIFEST_BYTES_MAX).await.map_err(err)?;
        // "the client SHOULD verify": by the digest asked for, else by the one that the registry claims
        let digest = reference.parse().ok().or(claimed).unwrap_or_else(|| Digest::of(&body));
        if !digest.matches(&body) {
            return Err(err(Why::Corrupt(format!("manifest should be {digest} and is {}", Digest::of(&body)))));
        }
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(RawManifest { media_type, digest, body })
    }

    async fn resolve(&self, repository: &str, reference: &str) -> Result<Option<Descriptor>, Error> {
        let err = |why| self.error(repository, reference, why);
        let url = self.client.url(&format!("{repository}/manifests/{reference}")).map_err(err)?;
        let ask = Expect::new(Method::HEAD, url, &[StatusCode::OK])
            .scope(pull_scope(repository))
            .header(header::ACCEPT, ACCEPT);
        let answer = match self.client.call(ask).await {
            Ok(answer) => answer,
            Err(Why::NotFound) => return Ok(None),
            Err(why) => return Err(err(why)),
        };
        let asked = reference.parse().ok();
        let (Some(digest), Some(size)) = (asked.or(client::digest(answer.headers())), client::length(answer.headers()))
        else {
            // a registry that doesn't say digest and length in HEAD says them in GET
            let m = self.manifest(repository, reference).await?;
            let size = m.body.len() as u64;
            return Ok(Some(Descriptor { media_type: m.media_type, digest: m.digest, size, urls: Vec::new() }));
        };
        let media_type = client::text(answer.headers(), &header::CONTENT_TYPE).unwrap_or_default();
        Ok(Some(Descriptor { media_type, digest, size, urls: Vec::new() }))
    }

    async fn stat(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, Error> {
        let err = |why| self.error(repository, digest.as_str(), why);
        let url = self.client.url(&format!("{repository}/blobs/{digest}")).map_err(err)?;
        match self.client.call(Expect::new(Method::HEAD, url, &[StatusCode::OK]).scope(pull_scope(repository))).await {
            Ok(answer) => match client::length(answer.headers()) {
                Some(size) => Ok(Some(size)),
                None => Err(err(Why::Malformed("HEAD of a blob without Content-Length".to_owned()))),
            },
            Err(Why::NotFound) => Ok(None),
            Err(why) => Err(err(why)),
        }
    }

    async fn blob(&self, repository: &str, digest: &Digest, offset: u64) -> Result<ByteStream, Error> {
        let at = self.client.endpoint.at(repository, digest.as_str());
        let err = |why| Error::new(at.clone(), why);
        let url = self.client.url(&format!("{repository}/blobs/{digest}")).map_err(err)?;
        let mut ask =
            Expect::new(Method::GET, url, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT]).scope(pull_scope(repository));
        if offset > 0 {
            ask = ask.header(header::RANGE, &format!("bytes={offset}-"));
        }
        let answer = self.client.call(ask).await.map_err(err)?;
        // a registry without Range sends all of it: what came before `offset` is read and dropped
        let mut skip = if answer.status() == StatusCode::PARTIAL_CONTENT { 0 } else { offset };
        let body = answer.into_body().into_data_stream();
        let pieces = futures::stream::unfold(Some((body, at.clone())), async |state| {
            let (mut body, at) = state?;
            match tokio::time::timeout(READ_TIMEOUT, body.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(piece))) => Some((Ok(piece), Some((body, at)))),
                Ok(Some(Err(e))) => Some((Err(Error::new(at, Why::Broken(innermost(&e)))), None)),
                Err(_) => Some((Err(Error::new(at, Why::TimedOut(READ_TIMEOUT))), None)),
            }
        });
        Ok(Box::pin(pieces.filter_map(move |piece| {
            let piece = piece.map(|mut bytes: Bytes| {
                let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                skip -= cut as u64;
                bytes.split_off(cut)
            });
            std::future::ready(match piece {
                Ok(bytes) if bytes.is_empty() => None,
                piece => Some(piece),
            })
        })))
    }

    async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        #[derive(Deserialize)]
        struct Page {
            manifests: Vec<Descriptor>,
        }
        let take = |body: &[u8]| serde_json::from_slice::<Page>(body).map(|p| p.manifests);
        let path = format!("{repository}/referrers/{digest}");
        match self.pages(&path, repository, pull_scope(repository), take).await {
            // "A 404 indicates that the registry does not support the API": then they are in the index tagged `alg-hex`
            Err(Error { why: Why::NotFound, .. }) => {}
            other => return other,
        }
        match self.manifest(repository, &digest.as_str().replacen(':', "-", 1)).await {
            Ok(m) if m.media_type == OCI_INDEX => {
                let err = |e: serde_json::Error| self.error(repository, digest.as_str(), Why::Malformed(e.to_string()));
                take(&m.body).map_err(err)
            }
            Ok(_) | Err(Error { why: Why::NotFound, .. }) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    async fn tags(&self, repository: &str) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let take = |body: &[u8]| serde_json::from_slice::<Page>(body).map(|p| p.tags.unwrap_or_default());
        self.pages(&format!("{repository}/tags/list?n={PAGE_ENTRIES}"), repository, pull_scope(repository), take).await
    }

    async fn catalog(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            repositories: Option<Vec<String>>,
        }
        let take = |body: &[u8]| serde_json::from_slice::<Page>(body).map(|p| p.repositories.unwrap_or_default());
        self.pages(&format!("_catalog?n={PAGE_ENTRIES}"), "", "registry:catalog:*".to_owned(), take).await
    }
}

#[async_trait::async_trait]
impl Push for Oci {
    async fn begin(&self, repository: &str, digest: &Digest, mount: Option<&str>) -> Result<Begun, Error> {
        let err = |why| self.error(repository, digest.as_str(), why);
        let mut url = self.client.url(&format!("{repository}/blobs/uploads/")).map_err(err)?;
        let mut scopes = vec![push_scope(repository)];
        if let Some(from) = mount {
            url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
            scopes.push(pull_scope(from));
        }
        let mut ask = Expect::new(Method::POST, url.clone(), &[StatusCode::CREATED, StatusCode::ACCEPTED]);
        for scope in scopes {
            ask = ask.scope(scope);
        }
        let answer = self.client.call(ask).await.map_err(err)?;
        // 201: mounted. 202: "the registry MAY fall back to the standard upload process", so the session is open already
        if answer.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        let location = client::location(answer.headers(), &url).map_err(err)?;
        Ok(Begun::Upload(Upload {
            repository: repository.to_owned(),
            digest: digest.clone(),
            location: location.into(),
        }))
    }

    async fn send(
        &self,
        upload: &mut Upload,
        offset: u64,
        len: u64,
        last: bool,
        body: ByteStream,
    ) -> Result<(), Error> {
        let err = |why| self.error(&upload.repository, upload.digest.as_str(), why);
        let mut url = Url::parse(&upload.location).map_err(|e| err(Why::Malformed(e.to_string())))?;
        let (method, want) =
            if last { (Method::PUT, StatusCode::CREATED) } else { (Method::PATCH, StatusCode::ACCEPTED) };
        if last {
            url.query_pairs_mut().append_pair("digest", upload.digest.as_str());
        }
        let mut ask = Expect::new(method, url.clone(), &[want])
            .scope(push_scope(&upload.repository))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, &len.to_string());
        if len > 0 && (offset > 0 || !last) {
            ask = ask.header(header::CONTENT_RANGE, &format!("{offset}-{}", offset + len - 1));
        }
        let body = StreamBody::new(body.map(|piece| piece.map(hyper::body::Frame::data))).boxed_unsync();
        let answer = self.client.stream(ask, body).await.map_err(err)?;
        if !last {
            upload.location = client::location(answer.headers(), &url).map_err(err)?.into();
        }
        Ok(())
    }

    async fn kept(&self, upload: &mut Upload) -> Result<Option<u64>, Error> {
        let err = |why| self.error(&upload.repository, upload.digest.as_str(), why);
        let url = Url::parse(&upload.location).map_err(|e| err(Why::Malformed(e.to_string())))?;
        let ask =
            Expect::new(Method::GET, url.clone(), &[StatusCode::NO_CONTENT]).scope(push_scope(&upload.repository));
        let answer = match self.client.call(ask).await {
            Ok(answer) => answer,
            Err(Why::NotFound) => return Ok(None),
            Err(why) => return Err(err(why)),
        };
        if let Ok(location) = client::location(answer.headers(), &url) {
            upload.location = location.into();
        }
        Ok(received(&client::text(answer.headers(), &header::RANGE).unwrap_or_default()))
    }

    async fn abort(&self, upload: &Upload) -> Result<(), Error> {
        let err = |why| self.error(&upload.repository, upload.digest.as_str(), why);
        let url = Url::parse(&upload.location).map_err(|e| err(Why::Malformed(e.to_string())))?;
        let ask = Expect::new(Method::DELETE, url, &[StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED]);
        match self.client.call(ask.scope(push_scope(&upload.repository))).await {
            Ok(_) | Err(Why::NotFound) => Ok(()),
            Err(why) => Err(err(why)),
        }
    }

    async fn put_manifest(&self, repository: &str, reference: &str, manifest: &RawManifest) -> Result<(), Error> {
        let err = |why| self.error(repository, reference, why);
        let url = self.client.url(&format!("{repository}/manifests/{reference}")).map_err(err)?;
        let ask = Expect::new(Method::PUT, url, &[StatusCode::CREATED, StatusCode::OK])
            .scope(push_scope(repository))
            .header(header::CONTENT_TYPE, &manifest.media_type)
            .body(manifest.body.clone());
        let answer = self.client.call(ask).await.map_err(err)?;
        match client::digest(answer.headers()) {
            Some(stored) if stored != manifest.digest => {
                Err(err(Why::Corrupt(format!("sent {} and the registry stored {stored}", manifest.digest))))
            }
            _ => Ok(()),
        }
    }
}

/// A body of bytes that are there already.
fn full(bytes: Bytes) -> transport::Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// How many bytes of an upload a registry has, by its `Range: 0-LAST`. `0-0` is what registries say of an empty upload,
/// too.
fn received(range: &str) -> Option<u64> {
    let last: u64 = range.rsplit_once('-')?.1.parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upload_has_is_read_from_any_range() {
        for (range, want) in [
            ("0-0", Some(0)),
            ("0-1", Some(2)),
            ("bytes=0-99", Some(100)),
            ("0-18446744073709551615", Some(u64::MAX)),
            ("0-18446744073709551616", None),
            ("0-x", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(received(range), want, "{range:?}");
        }
    }
}
