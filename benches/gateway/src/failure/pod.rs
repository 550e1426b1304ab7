//! A pod: answers after a moment, writes down which POSTs reached it, and ends as servers do when it is told to.
//!
//! In: where to listen, a folder. Out: one line a POST in a file of its own there. When it is killed its connections are reset: they don't linger.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Result, say};

/// How long a request takes.
const WORK: Duration = Duration::from_millis(5);
const SUFFIX: &str = ".posts";

/// Serves until SIGTERM, and then what is under way.
pub(crate) async fn serve(at: SocketAddr, folder: &Path) -> Result<()> {
    let listener = TcpListener::bind(at).await?;
    let file = OpenOptions::new().create(true).append(true).open(folder.join(format!("{}{SUFFIX}", at.ip())))?;
    let posts = Arc::new(Mutex::new(file));
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    say("ready", at)?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            _ = terminate.recv() => break,
        };
        stream.set_nodelay(true)?;
        stream.set_zero_linger()?;
        let (posts, stop) = (Arc::clone(&posts), stop.clone());
        let service = service_fn(move |request| answer(request, Arc::clone(&posts)));
        tracker.spawn(async move {
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let mut serving = pin!(serving);
            tokio::select! {
                _ = serving.as_mut() => {}
                () = stop.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    let _ = serving.await;
                }
            }
        });
    }
    drop(listener);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(())
}

async fn answer(
    request: Request<Incoming>,
    posts: Arc<Mutex<std::fs::File>>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let is_post = request.method() == Method::POST;
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if is_post {
        let line = [&body[..], b"\n"].concat();
        // Whoever reads the file finds too few lines where this fails.
        let _ = posts.lock().map(|mut file| file.write_all(&line));
    }
    tokio::time::sleep(WORK).await;
    Ok(Response::new(Full::from("ok")))
}

/// How often each POST reached a pod.
pub(super) fn reached(folder: &Path) -> Result<HashMap<String, usize>> {
    let mut reached = HashMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(SUFFIX) {
            for id in std::fs::read_to_string(path)?.lines() {
                *reached.entry(id.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(reached)
}
