//! Clients that don't go on: cut after a while, with what they hold; clients that are slow or silent but go on are not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use atoll_gateway::Limits;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::backend::{Manner, Pod};
use crate::client::{get, send_h2c};
use crate::world::{Made, World, import, route, topology};

/// How long a client may stand still here.
const SHORT: Duration = Duration::from_secs(1);
/// Longer than that, in every respect.
const SILENCE: Duration = Duration::from_millis(2500);
const LONG: Duration = Duration::from_secs(20);

async fn world(pod: &Pod) -> World {
    let made = Made::default();
    let limits = Limits { body_timeout: SHORT, write_timeout: SHORT, idle_timeout: SHORT, ..made.limits };
    let world = World::start_as(Made { limits, ..made }).await;
    world.publish(topology(&[("eu", &[pod])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until_status(route("web", &[], json!([])), |s| !s["parents"][0].is_null()).await;
    world
}

async fn say(at: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut got = String::new();
    timeout(LONG, stream.read_to_string(&mut got)).await.expect("it ends").unwrap();
    got
}

#[tokio::test]
async fn a_client_has_no_more_connections_than_it_may() {
    let pod = Pod::start("web", "127.24.9.1").await;
    let made = Made::default();
    let limits = Limits { client_connections_max: 8, ..made.limits };
    let world = World::start_as(Made { limits, ..made }).await;
    world.publish(topology(&[("eu", &[&pod])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.status == 200).await;
    // Those that asked are gone.
    let idle = async {
        while world.gauge("atoll_gateway_connections", &[]) != Some(0.0) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, idle).await.expect("they go");
    let held = futures::future::join_all((0..8).map(|_| TcpStream::connect(world.http))).await;
    let mut held: Vec<TcpStream> = held.into_iter().map(Result::unwrap).collect();
    let mut refused = TcpStream::connect(world.http).await.unwrap();
    let read = timeout(LONG, refused.read_u8()).await.expect("one more is closed at once");
    assert!(read.is_err(), "{read:?}");
    world.until_cut("connections", 1).await;
    let mut first = held.remove(0);
    first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(first).await.starts_with("HTTP/1.1 200"), "who is there stays");
    drop(held);
    world.until("x", "/", |a| a.status == 200).await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A connection that speaks HTTP/2, with little room for each answer.
async fn h2(at: SocketAddr) -> (hyper::client::conn::http2::SendRequest<Body>, tokio::task::JoinHandle<()>) {
    let stream = TokioIo::new(TcpStream::connect(at).await.unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(20_000).handshake(stream).await.unwrap();
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

fn ask() -> Request<Body> {
    Request::get("http://x/").body(Full::default().boxed()).unwrap()
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_given_up_and_a_slow_one_is_taken() {
    let web = Pod::start("web", "127.22.0.1").await;
    let world = world(&web).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\n";
    let stopped = say(world.http, &format!("{head}abc")).await;
    let mut slow = say(world.http, head).await;
    for octet in b"steadily!" {
        sleep(SHORT / 3).await;
        slow.write_all(&[*octet]).await.unwrap();
    }
    let got = rest(slow).await;
    assert!(got.starts_with("HTTP/1.1 200") && got.contains("steadily!"), "{got}");
    let got = rest(stopped).await;
    assert!(got.starts_with("HTTP/1.1 408"), "{got}");
    assert!(got.contains("does not go on"), "it says why: {got}");
    world.until_cut("body", 1).await;

    let (mut sender, _connection) = h2(world.http).await;
    let begun = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"abc")))]).chain(futures::stream::pending());
    let request = Request::post("http://x/").body(BodyExt::boxed(StreamBody::new(begun))).unwrap();
    let answer = timeout(LONG, sender.send_request(request)).await.expect("an answer").unwrap();
    assert_eq!(answer.status(), 408);
    world.until_cut("body", 2).await;
    assert_eq!(get(world.http, "x", "/").await.status, 200, "no endpoint is to blame");
}

#[tokio::test]
async fn a_body_that_outlasts_its_answer_is_given_up_too() {
    let hasty = Pod::start_as("hasty", "127.22.1.1", 0, Manner::Hasty).await;
    let world = world(&hasty).await;
    let got = rest(say(world.http, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\nabc").await).await;
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    world.until_cut("body", 1).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_and_its_endpoint_left() {
    let flood = Pod::start_as("flood", "127.22.2.1", 0, Manner::Flood).await;
    let world = world(&flood).await;
    let silent = say(world.http, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    world.until_cut("answer", 1).await;
    let in_flight = || async {
        let seen = world.server.explain("x", "/", None).await;
        seen.pointer("/listeners/0/backends/0/tiers/0/0/endpoints/0/inFlight").cloned()
    };
    timeout(LONG, async {
        while in_flight().await != Some(json!(0)) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the endpoint is left");
    drop(silent);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset_and_its_connection_goes_on() {
    let flood = Pod::start_as("flood", "127.22.3.1", 0, Manner::Flood).await;
    let world = world(&flood).await;
    let (mut sender, _connection) = h2(world.http).await;
    let unread = sender.send_request(ask()).await.unwrap();
    world.until_cut("answer", 1).await;
    let mut body = unread.into_body();
    let ended = timeout(LONG, async { while let Some(Ok(_)) = body.frame().await {} });
    ended.await.expect("it was reset");
    let mut read = sender.send_request(ask()).await.expect("the connection is still there").into_body();
    let mut length = 0;
    let slowly = async {
        while length < 400_000 {
            length += read.frame().await.unwrap().expect("who reads is served").into_data().unwrap().len();
            sleep(SHORT / 50).await;
        }
    };
    timeout(LONG, slowly).await.expect("it goes on");
    assert_eq!(world.cut("answer"), 1);
}

/// An endpoint that begins to answer, is silent, and goes on once it has the whole body.
async fn hesitant(ip: &str) -> Pod {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut got, mut part) = (Vec::new(), [0; 4096]);
                while !got.ends_with(b"the end") {
                    let Ok(1..) = stream.read(&mut part).await.inspect(|n| got.extend_from_slice(&part[..*n])) else {
                        return;
                    };
                    if got.ends_with(b"\r\n\r\nbegin") {
                        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n";
                        stream.write_all(head).await.unwrap();
                    }
                }
                sleep(SILENCE).await;
                stream.write_all(b"3\r\nend\r\n0\r\n\r\n").await.unwrap();
            });
        }
    });
    pod
}

#[tokio::test]
async fn streams_that_are_silent_on_both_sides_go_on() {
    let pod = hesitant("127.22.4.1").await;
    let world = world(&pod).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 12\r\n\r\nbegin";
    let mut stream = say(world.http, head).await;
    let (mut got, mut part) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&got).contains("begun") {
        let n = timeout(LONG, stream.read(&mut part)).await.expect("it begins").unwrap();
        assert_ne!(n, 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&part[..n]);
    }
    sleep(SILENCE).await;
    stream.write_all(b"the end").await.unwrap();
    let got = rest(stream).await;
    assert!(got.contains("end"), "{got}");
    assert_eq!((world.cut("body"), world.cut("answer")), (0, 0));
}

#[tokio::test]
async fn a_websocket_may_be_silent() {
    let web = Pod::start("ws", "127.22.5.1").await;
    let world = world(&web).await;
    let head = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut stream = say(world.http, head).await;
    sleep(SILENCE).await;
    stream.write_all(b"hello").await.unwrap();
    let got = rest(stream).await;
    assert!(got.ends_with("ws heard hello"), "{got}");
}

#[tokio::test]
async fn an_http2_connection_without_a_stream_ends_after_a_while() {
    let web = Pod::start("web", "127.22.6.1").await;
    let world = world(&web).await;
    let (mut sender, connection) = h2(world.http).await;
    sender.send_request(ask()).await.unwrap().into_body().collect().await.unwrap();
    timeout(LONG, connection).await.expect("it is told that it is over").unwrap();
    world.until_cut("idle", 1).await;
    assert_eq!(send_h2c(world.http, "http://x/").await.status, 200, "another one is served");
}

#[tokio::test]
async fn an_answer_that_begins_after_three_seconds_on_purpose_is_waited_for_and_takes_nobody_out() {
    let world = World::start().await;
    let (only, us) = (Pod::start("eu-1", "127.11.9.1").await, Pod::start("us-1", "127.11.9.2").await);
    world.publish(topology(&[("eu", &[&only]), ("us", &[&us])]), true);
    world.apply(route("web", &[], json!([{"backendRefs": [import("web")]}]))).await;
    world.until("x", "/", |a| a.pod() == "eu-1").await;
    // All that are in use there are slow at once: probes find them, and nobody goes elsewhere.
    let slow = [(); 4].map(|()| tokio::spawn(get(world.http, "x", "/?wait_ms=3000")));
    for answer in slow {
        assert_eq!(answer.await.unwrap().pod(), "eu-1");
    }
    assert_eq!(get(world.http, "x", "/").await.pod(), "eu-1");
    assert!(world.gauge("atoll_gateway_cluster_out", &["eu"]).unwrap_or(0.0) < 0.5, "its cluster was never out");
}
