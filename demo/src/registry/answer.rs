//! One request to the registry, by its path, and its answer.

use std::sync::Arc;

use atoll_registry::{
    Credentials, Digest,
    backend::{RawManifest, memory::Store},
    check_repository, check_tag,
    manifest::{Descriptor, MANIFEST_BYTES_MAX, OCI_INDEX},
};
use base64::Engine as _;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, response::Builder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes};
use serde_json::json;

use super::Answer;

const DIGEST_HEADER: &str = "docker-content-digest";
/// Entries of a page where the request names no number.
const PAGE_ENTRIES: usize = 1000;

/// A registry over a store in memory.
pub struct Registry {
    pub(super) store: Arc<Store>,
    pub(super) credentials: Option<Credentials>,
    pub(super) upload_bytes_max: u64,
}

/// A refusal in the specification's words.
pub(super) struct Refusal(StatusCode, &'static str, String);

impl Refusal {
    pub(super) fn into_answer(self) -> Answer {
        let Self(status, code, message) = self;
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
        let mut builder = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
        if status == StatusCode::UNAUTHORIZED {
            builder = builder.header(header::WWW_AUTHENTICATE, r#"Basic realm="atoll demo""#);
        }
        finish(builder, body.into())
    }
}

fn refuse<T>(status: StatusCode, code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(status, code, message.into()))
}

fn finish(builder: Builder, body: Bytes) -> Answer {
    builder.body(Full::new(body)).unwrap_or_else(|_| {
        // only names that a client chose could be no header value, and they were checked
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
}

fn ok(status: StatusCode) -> Builder {
    Response::builder().status(status)
}

fn json_answer() -> Builder {
    ok(StatusCode::OK).header(header::CONTENT_TYPE, "application/json")
}

/// What a path names below `/v2/`.
enum Target {
    Root,
    Catalog,
    Tags(String),
    Manifest(String, String),
    Blob(String, String),
    Uploads(String),
    Upload(String, u64),
    Referrers(String, String),
}

fn target(path: &str) -> Option<Target> {
    let rest = path.strip_prefix("/v2")?.trim_start_matches('/');
    if rest.is_empty() {
        return Some(Target::Root);
    }
    if rest == "_catalog" {
        return Some(Target::Catalog);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some(Target::Tags(name.to_owned()));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Some(Target::Uploads(name.to_owned()));
    }
    let (front, last) = rest.rsplit_once('/')?;
    let last = last.replace("%3A", ":").replace("%3a", ":");
    if let Some(name) = front.strip_suffix("/blobs/uploads") {
        return Some(Target::Upload(name.to_owned(), last.parse().ok()?));
    }
    let (name, what) = front.rsplit_once('/')?;
    let name = name.to_owned();
    match what {
        "manifests" => Some(Target::Manifest(name, last)),
        "blobs" => Some(Target::Blob(name, last)),
        "referrers" => Some(Target::Referrers(name, last)),
        _ => None,
    }
}

fn query(request_query: Option<&str>, key: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(request_query.unwrap_or_default().as_bytes());
    pairs.into_iter().find(|(k, _)| k == key).map(|(_, v)| v.into_owned())
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse()
        .or_else(|e: atoll_registry::NameError| refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", e.to_string()))
}

impl Registry {
    pub(super) async fn route<B>(&self, request: Request<B>) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        self.authenticate(request.headers())?;
        let (parts, body) = request.into_parts();
        let query = |key: &str| query(parts.uri.query(), key);
        let read = parts.method == Method::GET || parts.method == Method::HEAD;
        let Some(target) = target(parts.uri.path()) else {
            return refuse(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such path");
        };
        if let Target::Tags(n)
        | Target::Manifest(n, _)
        | Target::Blob(n, _)
        | Target::Uploads(n)
        | Target::Upload(n, _)
        | Target::Referrers(n, _) = &target
            && let Err(e) = check_repository(n)
        {
            return refuse(StatusCode::BAD_REQUEST, "NAME_INVALID", e.to_string());
        }
        match (target, &parts.method) {
            (Target::Root, _) if read => Ok(finish(json_answer(), "{}".into())),
            (Target::Catalog, &Method::GET) => {
                Ok(page(&self.store.repositories(), "repositories", None, parts.uri.path(), &query))
            }
            (Target::Tags(name), &Method::GET) => match self.store.tags(&name) {
                Some(tags) => Ok(page(&tags, "tags", Some(&name), parts.uri.path(), &query)),
                None => refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN", name),
            },
            (Target::Manifest(name, reference), _) if read => self.manifest(&name, &reference),
            (Target::Manifest(name, reference), &Method::PUT) => {
                self.put_manifest(&name, &reference, &parts.headers, body).await
            }
            (Target::Blob(name, text), _) if read => self.blob(&name, &digest(&text)?, &parts.headers),
            (Target::Uploads(name), &Method::POST) => {
                self.begin(&name, query("mount"), query("from"), query("digest"), body).await
            }
            (Target::Upload(name, id), &Method::GET) => match self.store.upload_len(id) {
                Some(len) => Ok(finish(session(StatusCode::NO_CONTENT, &name, id, len), Bytes::new())),
                None => unknown_upload(),
            },
            (Target::Upload(name, id), &Method::PATCH) => {
                let len = self.write(id, &parts.headers, body).await?;
                Ok(finish(session(StatusCode::ACCEPTED, &name, id, len), Bytes::new()))
            }
            (Target::Upload(name, id), &Method::PUT) => {
                let digest = digest(&query("digest").unwrap_or_default())?;
                self.write(id, &parts.headers, body).await?;
                self.commit(&name, id, &digest)
            }
            (Target::Upload(_, id), &Method::DELETE) => match self.store.upload_abort(id) {
                true => Ok(finish(ok(StatusCode::NO_CONTENT), Bytes::new())),
                false => unknown_upload(),
            },
            (Target::Referrers(name, text), &Method::GET) => Ok(self.referrers(&name, &digest(&text)?)),
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "not here"),
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(c) = &self.credentials else { return Ok(()) };
        let want = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", c.username, c.password));
        let got =
            headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Basic "));
        if got == Some(want.as_str()) {
            Ok(())
        } else {
            refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required")
        }
    }

    fn manifest(&self, name: &str, reference: &str) -> Result<Answer, Refusal> {
        let Some(m) = self.store.manifest(name, reference) else {
            return refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("{name}:{reference}"));
        };
        let builder = ok(StatusCode::OK)
            .header(header::CONTENT_TYPE, &m.media_type)
            .header(header::CONTENT_LENGTH, m.body.len())
            .header(DIGEST_HEADER, m.digest.as_str());
        // hyper sends no body in answer to HEAD, and keeps the length
        Ok(finish(builder, m.body))
    }

    async fn put_manifest<B>(
        &self,
        name: &str,
        reference: &str,
        headers: &HeaderMap,
        body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let body = match Limited::new(MapError(body), MANIFEST_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", e.to_string()),
        };
        let media_type =
            headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(OCI_INDEX).to_owned();
        let found = Digest::of(&body);
        let tag = match reference.parse::<Digest>() {
            Ok(named) if named == found => None,
            Ok(named) => return refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", format!("{named} is {found}")),
            Err(_) => match check_tag(reference) {
                Ok(()) => Some(reference),
                Err(e) => return refuse(StatusCode::BAD_REQUEST, "TAG_INVALID", e.to_string()),
            },
        };
        let manifest = RawManifest { media_type, digest: found.clone(), body };
        if let Err(e) = self.store.put_manifest(name, tag, manifest) {
            return refuse(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN", e);
        }
        let location = format!("/v2/{name}/manifests/{found}");
        let builder = ok(StatusCode::CREATED).header(header::LOCATION, location).header(DIGEST_HEADER, found.as_str());
        Ok(finish(builder, Bytes::new()))
    }

    fn blob(&self, name: &str, digest: &Digest, headers: &HeaderMap) -> Result<Answer, Refusal> {
        let Some(body) = self.store.blob(name, digest) else {
            return refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", digest.to_string());
        };
        let builder = |status| {
            ok(status).header(header::CONTENT_TYPE, "application/octet-stream").header(DIGEST_HEADER, digest.as_str())
        };
        let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("bytes="));
        let from = range.and_then(|r| r.strip_suffix('-')).and_then(|r| r.parse::<usize>().ok());
        match from {
            Some(from) if from < body.len() => {
                let part = body.slice(from..);
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                let builder = builder(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
                Ok(finish(builder.header(header::CONTENT_LENGTH, part.len()), part))
            }
            Some(_) => refuse(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", "past the end"),
            None => Ok(finish(builder(StatusCode::OK).header(header::CONTENT_LENGTH, body.len()), body)),
        }
    }

    async fn begin<B>(
        &self,
        name: &str,
        mount: Option<String>,
        from: Option<String>,
        whole: Option<String>,
        body: B,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        if let (Some(mount), Some(from)) = (mount, from) {
            let mount = digest(&mount)?;
            if self.store.mount(name, &mount, &from) {
                return Ok(created(name, &mount));
            }
        }
        let id = self.store.upload_begin();
        // "POST with digest": the whole blob in one request
        if let Some(whole) = whole {
            let whole = digest(&whole)?;
            self.write(id, &HeaderMap::new(), body).await?;
            return self.commit(name, id, &whole);
        }
        Ok(finish(session(StatusCode::ACCEPTED, name, id, 0), Bytes::new()))
    }

    async fn write<B>(&self, id: u64, headers: &HeaderMap, mut body: B) -> Result<u64, Refusal>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
    {
        let Some(mut len) = self.store.upload_len(id) else { return unknown_upload() };
        let start = headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once('-'));
        // "chunks MUST be uploaded in order"
        if let Some(start) = start.and_then(|(s, _)| s.parse::<u64>().ok())
            && start != len
        {
            return refuse(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "BLOB_UPLOAD_INVALID",
                format!("want {len}, got {start}"),
            );
        }
        while let Some(frame) = body.frame().await {
            // what came before the break stays: that is what resuming is for
            let Ok(frame) = frame else { return refuse(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", "broken off") };
            if let Some(piece) = frame.data_ref() {
                if len + piece.len() as u64 > self.upload_bytes_max {
                    self.store.upload_abort(id);
                    let why = format!("a blob has at most {} bytes here", self.upload_bytes_max);
                    return refuse(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", why);
                }
                let Some(now) = self.store.upload_write(id, piece) else { return unknown_upload() };
                len = now;
            }
        }
        Ok(len)
    }

    fn commit(&self, name: &str, id: u64, digest: &Digest) -> Result<Answer, Refusal> {
        match self.store.upload_commit(id, name, digest) {
            Ok(()) => Ok(created(name, digest)),
            Err(e) => refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID", e),
        }
    }

    fn referrers(&self, name: &str, digest: &Digest) -> Answer {
        let one = |d: Descriptor| json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size});
        let manifests: Vec<_> = self.store.referrers(name, digest).into_iter().map(one).collect();
        let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string();
        finish(ok(StatusCode::OK).header(header::CONTENT_TYPE, OCI_INDEX), body.into())
    }
}

fn unknown_upload<T>() -> Result<T, Refusal> {
    refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "no such upload")
}

fn session(status: StatusCode, name: &str, id: u64, len: u64) -> Builder {
    ok(status)
        .header(header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}"))
        .header(header::RANGE, format!("0-{}", len.saturating_sub(1)))
        .header("docker-upload-uuid", id)
}

fn created(name: &str, digest: &Digest) -> Answer {
    let builder = ok(StatusCode::CREATED).header(header::LOCATION, format!("/v2/{name}/blobs/{digest}"));
    finish(builder.header(DIGEST_HEADER, digest.as_str()), Bytes::new())
}

/// A page of `all`, which is sorted: what comes after `last`, at most `n`.
fn page(all: &[String], key: &str, name: Option<&str>, path: &str, query: &dyn Fn(&str) -> Option<String>) -> Answer {
    let n = query("n").and_then(|n| n.parse().ok()).unwrap_or(PAGE_ENTRIES).min(PAGE_ENTRIES);
    let last = query("last").unwrap_or_default();
    let mut entries: Vec<_> = all.iter().filter(|e| **e > last).take(n + 1).collect();
    let more = entries.len() > n;
    entries.truncate(n);
    let mut body = json!({ key: entries });
    if let Some(name) = name {
        body["name"] = name.into();
    }
    let mut builder = json_answer();
    if let (true, Some(last)) = (more, entries.last()) {
        builder = builder.header(header::LINK, format!("<{path}?n={n}&last={last}>; rel=\"next\""));
    }
    finish(builder, body.to_string().into())
}

/// A body whose errors are words: what [`Limited`] wants.
struct MapError<B>(B);

impl<B: Body<Data = Bytes, Error: std::fmt::Display> + Unpin> Body for MapError<B> {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx).map_err(|e| e.to_string().into())
    }
}
