//! Requests while pods die and are rolled, and while a whole cluster goes, with room in the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::backend::{Manner, Pod};
use crate::client::request;
use crate::world::{World, import, route, topology};

/// Between two requests: 200 a second, of which a tenth are POSTs.
const EVERY: Duration = Duration::from_millis(5);
/// So long a request may take.
const WITHIN: Duration = Duration::from_secs(3);
const WAIT_MAX: Duration = Duration::from_secs(30);
const EU: usize = 4;

/// One request on a connection of its own.
async fn ask(at: std::net::SocketAddr, target: &str, body: &str) -> Result<u16, String> {
    let asked = async {
        let stream = TcpStream::connect(at).await.map_err(|e| e.to_string())?;
        let shaken = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|e| e.to_string())?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request("x", target, &[], body)).await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        let read = answer.into_body().collect().await.map_err(|e| e.to_string());
        connection.abort();
        read.map(|_| status)
    };
    tokio::time::timeout(WITHIN, asked).await.unwrap_or_else(|_| Err("no answer within 3 s".to_owned()))
}

/// What clients see.
#[derive(Default)]
struct Seen {
    gets: usize,
    failed: Vec<String>,
    posts: usize,
}

/// Asks at a fixed rate, whatever becomes of what was asked before.
fn load(at: std::net::SocketAddr) -> (Arc<AtomicBool>, JoinHandle<Seen>) {
    let stop = Arc::<AtomicBool>::default();
    let stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        let (began, mut every, mut asked) = (Instant::now(), tokio::time::interval(EVERY), JoinSet::new());
        let (mut seen, mut n) = (Seen::default(), 0_usize);
        while !stopped.load(Ordering::Relaxed) {
            every.tick().await;
            n += 1;
            if n.is_multiple_of(10) {
                seen.posts += 1;
                asked.spawn(async move {
                    let _ = ask(at, "POST /", &format!("post {n}")).await;
                    None
                });
            } else {
                seen.gets += 1;
                asked.spawn(async move {
                    let since = began.elapsed();
                    let answer = ask(at, "GET /", "").await;
                    Some(answer).filter(|a| *a != Ok(200)).map(|a| format!("at {since:?}: {a:?}"))
                });
            }
        }
        seen.failed = asked.join_all().await.into_iter().flatten().collect();
        seen
    });
    (stop, task)
}

/// Waits until `eu` is out (or not), and says how long that was after the first failure there.
async fn until_out(world: &World, out: bool) -> Duration {
    let failures = || world.metric("atoll_gateway_upstream_failures_total", "eu");
    let (started, before, mut first) = (Instant::now(), failures(), None);
    loop {
        if first.is_none() && failures() > before {
            first = Some(Instant::now());
        }
        if (world.metric("atoll_gateway_cluster_out", "eu") > 0.0) == out {
            return first.map_or(Duration::ZERO, |at| at.elapsed());
        }
        assert!(started.elapsed() < WAIT_MAX, "eu out: {out}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

struct Fleet {
    port: u16,
    pods: Vec<Pod>,
    /// Every pod that there ever was: what it got.
    busy: Vec<Arc<crate::backend::Busy>>,
}

impl Fleet {
    async fn start(&mut self, at: usize) {
        let ip = format!("127.32.0.{}", at + 1);
        let pod = Pod::start_as(&format!("eu-{at}"), &ip, self.port, Manner::Well).await;
        self.port = pod.address.port();
        self.busy.push(Arc::clone(&pod.busy));
        if at < self.pods.len() { self.pods[at] = pod } else { self.pods.push(pod) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_pods_that_die_and_clusters_that_go_and_a_post_reaches_one_backend_once() {
    let world = World::start().await;
    let mut eu = Fleet { port: 0, pods: Vec::new(), busy: Vec::new() };
    for at in 0..EU {
        eu.start(at).await;
    }
    let us = [Pod::start("us-0", "127.32.1.1").await];
    let us = [&us[0], &Pod::start_as("us-1", "127.32.1.2", us[0].address.port(), Manner::Well).await];
    let all: Vec<&Pod> = eu.pods.iter().collect();
    world.publish(topology(&[("eu", &all), ("us", &us)]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.pod().starts_with("eu")).await;
    let (stop, load) = load(world.http);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One dies, and all are rolled.
    for at in 0..EU {
        eu.pods[at].die();
        tokio::time::sleep(Duration::from_millis(300)).await;
        eu.start(at).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.until("x", "/", |a| a.pod().starts_with("eu")).await;
    for blackhole in [false, true] {
        let word = if blackhole { "blackhole" } else { "reset" };
        eu.pods.iter().for_each(|pod| if blackhole { pod.freeze() } else { pod.die() });
        let after = until_out(&world, true).await;
        assert!(after <= Duration::from_secs(1), "{word}: out {after:?} after the first failure");
        eprintln!("{word}: out {after:?} after the first failure");
        let hits = us.iter().map(|pod| pod.hits()).sum::<usize>();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(us.iter().map(|pod| pod.hits()).sum::<usize>() > hits + 50, "{word}: us serves");
        if !blackhole {
            for at in 0..EU {
                eu.start(at).await;
            }
            until_out(&world, false).await;
            world.until("x", "/", |a| a.pod().starts_with("eu")).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let seen = load.await.unwrap();
    assert_eq!(seen.failed, Vec::<String>::new(), "of {} requests", seen.gets);
    let mut posts: BTreeMap<String, usize> = BTreeMap::new();
    for busy in eu.busy.iter().chain(us.iter().map(|pod| &pod.busy)) {
        busy.posts.lock().unwrap().iter().for_each(|post| *posts.entry(post.clone()).or_default() += 1);
    }
    assert!(posts.len() * 2 > seen.posts, "{} of {} POSTs came through", posts.len(), seen.posts);
    let twice: Vec<&String> = posts.iter().filter(|(_, n)| **n > 1).map(|(post, _)| post).collect();
    assert!(twice.is_empty(), "twice: {twice:?}");
}
