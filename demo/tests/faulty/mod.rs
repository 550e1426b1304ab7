//! A registry that misbehaves as told, for tests of the copy engine.

#![allow(dead_code, reason = "no test uses all of it")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use atoll_demo::registry::Registry;
use atoll_reach::System;
use atoll_registry::{Credentials, End, Endpoint, backend::memory::Store};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What goes wrong, and how often.
#[derive(Default)]
pub(crate) struct Faults {
    /// So many answers are 500.
    pub errors: AtomicU32,
    /// So many answers are 429 with `Retry-After: 0`.
    pub throttles: AtomicU32,
    /// So many blob downloads are cut in the middle.
    pub cut_downloads: AtomicU32,
    /// So many blob uploads are cut in the middle.
    pub cut_uploads: AtomicU32,
    /// An upload that is cut loses its session, as docker-registry 2.8's does.
    pub forget_uploads: AtomicU32,
    /// Blob downloads have one wrong byte.
    pub wrong_bytes: AtomicU32,
    /// Ignores Range.
    pub no_range: AtomicU32,
    /// Mounts are not known: 202 with a session, as the specification allows.
    pub no_mount: AtomicU32,
}

/// A registry that runs until it is dropped.
pub(crate) struct Fixture {
    pub store: Arc<Store>,
    pub faults: Arc<Faults>,
    /// `METHOD path` of every request.
    pub log: Arc<Mutex<Vec<String>>>,
    /// Bytes of blobs that came up.
    pub uploaded: Arc<AtomicU64>,
    pub address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(None).await
    }

    pub(crate) async fn with(credentials: Option<Credentials>) -> Self {
        let (store, faults) = (Arc::new(Store::default()), Arc::new(Faults::default()));
        let (log, uploaded) = (Arc::new(Mutex::default()), Arc::new(AtomicU64::new(0)));
        let registry = Arc::new(Registry::new(store.clone(), credentials));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let all = (registry, store.clone(), faults.clone(), log.clone(), uploaded.clone());
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let all = all.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let (registry, store, faults, log, uploaded) = all.clone();
                        async move {
                            Ok::<_, Infallible>(answer(&registry, &store, &faults, &log, &uploaded, request).await)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { store, faults, log, uploaded, address, serving }
    }

    pub(crate) fn end(&self) -> End {
        End {
            endpoint: Endpoint::new(&format!("http://{}", self.address)).unwrap(),
            connect: Arc::new(System::default()),
        }
    }

    pub(crate) fn requests(&self, what: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|l| l.contains(what)).count()
    }
}

fn spend(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn plain(response: Response<Full<Bytes>>) -> Response<Body> {
    response.map(|b| b.map_err(|never| match never {}).boxed_unsync())
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = plain(Response::new(Full::default()));
    *response.status_mut() = code;
    response
}

async fn answer(
    registry: &Registry,
    store: &Store,
    faults: &Faults,
    log: &Mutex<Vec<String>>,
    uploaded: &AtomicU64,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    log.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
    if spend(&faults.errors) {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if spend(&faults.throttles) {
        let mut response = status(StatusCode::TOO_MANY_REQUESTS);
        response.headers_mut().insert("retry-after", "0".parse().unwrap());
        return response;
    }
    let blob = path.contains("/blobs/") && !path.contains("/uploads/");
    if blob && request.method() == Method::GET {
        if faults.no_range.load(Ordering::SeqCst) > 0 {
            request.headers_mut().remove("range");
        }
        return download(faults, registry.answer(request).await).await;
    }
    let upload = path.contains("/uploads/") && [Method::PATCH, Method::PUT].contains(request.method());
    if upload && spend(&faults.cut_uploads) {
        return cut_upload(store, faults, &path, uploaded, request).await;
    }
    if faults.no_mount.load(Ordering::SeqCst) > 0 && request.method() == Method::POST {
        *request.uri_mut() = path.parse().unwrap();
    }
    if upload {
        let len: u64 = request.headers().get("content-length").map_or(0, |v| v.to_str().unwrap().parse().unwrap());
        uploaded.fetch_add(len, Ordering::SeqCst);
    }
    plain(registry.answer(request).await)
}

/// Sends half and cuts, or sends all with one byte wrong.
async fn download(faults: &Faults, response: Response<Full<Bytes>>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut bytes = body.collect().await.unwrap().to_bytes().to_vec();
    if faults.wrong_bytes.load(Ordering::SeqCst) > 0 && !bytes.is_empty() {
        bytes[0] ^= 1;
    }
    let cut = bytes.len() > 1 && spend(&faults.cut_downloads);
    let end = if cut { bytes.len() / 2 } else { bytes.len() };
    let mut frames = vec![Ok(Frame::data(Bytes::from(bytes[..end].to_vec())))];
    if cut {
        frames.push(Err(std::io::Error::other("cut")));
    }
    // hyper sends what is ready and an error in one go, and would drop the first: give it a turn between them
    let paced = futures::stream::iter(frames).then(async |f| {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        f
    });
    Response::from_parts(parts, StreamBody::new(paced).boxed_unsync())
}

/// Takes half of what comes, then cuts the connection.
async fn cut_upload(
    store: &Store,
    faults: &Faults,
    path: &str,
    uploaded: &AtomicU64,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let len: usize = request.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let id: u64 = path.rsplit('/').next().unwrap().parse().unwrap();
    let mut left = len / 2;
    while left > 0 {
        let Some(Ok(frame)) = request.body_mut().frame().await else { break };
        let piece = frame.into_data().unwrap_or_default();
        let keep = piece.len().min(left);
        store.upload_write(id, &piece[..keep]);
        uploaded.fetch_add(keep as u64, Ordering::SeqCst);
        left -= keep;
    }
    if faults.forget_uploads.load(Ordering::SeqCst) > 0 {
        store.upload_abort(id);
    }
    let broken = futures::stream::iter([Err(std::io::Error::other("cut"))]);
    let mut response = Response::new(StreamBody::new(broken).boxed_unsync());
    // a promise of more that is not kept closes the connection
    response.headers_mut().insert("content-length", "10".parse().unwrap());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
