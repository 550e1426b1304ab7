//! Requests by HTTP/3: the same line as by the others, with bodies and trailers both ways.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::backend::Pod;
use crate::peer::{Became, HEADERS, frame, get, read, section};
use crate::quic::{LONG, asks};
use crate::stage::Stage;
use crate::world::{Made, route, service};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_goes_the_same_line_as_by_http2() {
    let log = Log::default();
    let stage = Stage::set("127.50.0.1", Made { access: Some(Box::new(log.clone())), ..Made::default() }).await;
    let mut client = stage.open().await;
    let answer = client.ask(asks("a.test", "GET /x?q=1", &[("x-a", "1")]), &[], None).await.unwrap();
    assert_eq!((answer.status, answer.pod()), (200, "web"), "{answer:?}");
    let said = answer.said();
    assert_eq!((&said["method"], &said["uri"], &said["body"]), (&json!("GET"), &json!("/x?q=1"), &json!("")));
    for (name, value) in
        [("host", "a.test"), ("x-forwarded-proto", "https"), ("x-forwarded-for", "127.0.0.1"), ("x-a", "1")]
    {
        assert_eq!(said["headers"][name], value, "{said:#}");
    }
    assert!(said["headers"]["transfer-encoding"].is_null(), "a GET has no body: {said:#}");
    assert_eq!(answer.header("date").len(), 29);
    assert_eq!(answer.header("content-length"), answer.octets.len().to_string());
    assert_eq!(answer.header("alt-svc"), "", "who is here already is not told");
    let head = client.ask(asks("a.test", "HEAD /x", &[]), &[], None).await.unwrap();
    assert_eq!((head.status, head.octets.len()), (200, 0));
    assert_ne!(head.header("content-length"), "0", "the length that a GET would have");
    let began = Instant::now();
    let line = loop {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["method"] == "GET") {
            break line;
        }
        assert!(began.elapsed() < LONG, "{text}");
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((&line["protocol"], &line["status"], &line["cluster"]), (&json!("HTTP/3.0"), &json!(200), &json!("eu")));
    assert!(stage.world.server.connections()["all"].as_u64() >= Some(1), "it is among the connections");
}

#[tokio::test]
async fn bodies_pass_both_ways_in_pieces_and_many_requests_at_once() {
    let stage = Stage::set("127.50.1.1", Made::default()).await;
    let mut client = stage.open().await;
    let answer = client.ask(asks("a.test", "POST /", &[]), &[b"one ", b"two ", b"three"], None).await.unwrap();
    assert_eq!((answer.status, &answer.said()["body"]), (200, &json!("one two three")));
    assert_eq!(answer.said()["headers"]["transfer-encoding"], "chunked");
    let sized = client.ask(asks("a.test", "POST /", &[("content-length", "3")]), &[b"abc"], None).await.unwrap();
    assert_eq!((&sized.said()["body"], &sized.said()["headers"]["content-length"]), (&json!("abc"), &json!("3")));
    // More than all windows hold.
    let large = "abcdefgh".repeat(512 * 1024);
    let answer = client.ask(asks("a.test", "PUT /", &[]), &[large.as_bytes()], None).await.unwrap();
    assert!(answer.said()["body"] == json!(large), "{} bytes came back", answer.octets.len());
    let at_once = (0..100).map(|at| {
        let mut sender = client.sender.clone();
        async move {
            let mut stream = sender.send_request(asks("a.test", &format!("GET /{at}"), &[])).await.unwrap();
            stream.finish().await.unwrap();
            let head = stream.recv_response().await.unwrap();
            let mut body = Vec::new();
            while let Some(mut data) = stream.recv_data().await.unwrap() {
                body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            let said: Value = serde_json::from_slice(&body).unwrap();
            (head.status().as_u16(), said["uri"] == format!("/{at}"))
        }
    });
    let answers = timeout(LONG, futures::future::join_all(at_once)).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == (200, true)), "{answers:?}");
}

#[tokio::test]
async fn an_answer_and_a_body_go_on_at_the_same_time() {
    let listener = TcpListener::bind("127.50.2.1:0").await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    // Says at once what it hears, chunk by chunk.
    let echo = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut octets = vec![0; 4096];
                let Ok(n @ 1..) = stream.read(&mut octets).await else { return };
                let mut heard = String::from_utf8_lossy(&octets[..n]).into_owned();
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
                for word in ["first", "second"] {
                    while !heard.contains(word) {
                        let n = stream.read(&mut octets).await.unwrap();
                        heard.push_str(&String::from_utf8_lossy(&octets[..n]));
                    }
                    stream.write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).await.unwrap();
                }
                stream.write_all(b"0\r\nx-sum: 7\r\n\r\n").await.unwrap();
            });
        }
    });
    let stage = Stage::before(pod, Made::default()).await;
    let mut client = stage.open().await;
    let mut stream = client.sender.send_request(asks("a.test", "POST /", &[("te", "trailers")])).await.unwrap();
    let both = async {
        let mut heard = Vec::new();
        for (word, is_last) in [("first", false), ("second", true)] {
            stream.send_data(Bytes::from_static(word.as_bytes())).await.unwrap();
            if is_last {
                stream.finish().await.unwrap();
            } else {
                assert_eq!(stream.recv_response().await.unwrap().status(), 200);
            }
            let mut data = stream.recv_data().await.unwrap().unwrap();
            heard.push(String::from_utf8(data.copy_to_bytes(data.remaining()).to_vec()).unwrap());
        }
        assert_eq!(heard, ["first", "second"]);
        assert!(stream.recv_data().await.unwrap().is_none());
        assert_eq!(stream.recv_trailers().await.unwrap().unwrap()["x-sum"], "7");
    };
    timeout(LONG, both).await.expect("neither waits for the other's end");
    echo.abort();
}

#[tokio::test]
async fn grpc_and_trailers_come_through() {
    let stage = Stage::set("127.50.3.1", Made::default()).await;
    let [mut object, slice] = service("grpc", &stage.pod);
    object["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c");
    stage.world.apply(object).await;
    stage.world.apply(slice).await;
    stage.world.apply(route("call", &["a.test"], json!([{"backendRefs": [{"name": "grpc", "port": 80}]}]))).await;
    let mut client = stage.open().await;
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let began = Instant::now();
    let answer = loop {
        let answer = client.ask(asks("a.test", "POST /a.B/C", &headers), &[b"\0\0\0\0\x01x"], None).await.unwrap();
        if answer.said()["version"] == "HTTP/2.0" {
            break answer;
        }
        assert!(began.elapsed() < LONG, "{answer:?}");
    };
    assert_eq!((answer.status, answer.trailers.get("grpc-status").unwrap().as_bytes()), (200, &b"0"[..]));
    assert_eq!(answer.said()["body"], "\0\0\0\0\u{1}x");
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
    let sent = client.ask(asks("a.test", "POST /", &headers[1..]), &[b"x"], Some(trailers)).await.unwrap();
    assert_eq!((sent.status, &sent.said()["body"]), (200, &json!("x")));
    // Nobody is there: gRPC is told in its own words.
    stage.pod.die();
    let began = Instant::now();
    loop {
        let answer = client.ask(asks("a.test", "POST /a.B/C", &headers), &[b"x"], None).await.unwrap();
        if answer.header("grpc-status") == "14" {
            break;
        }
        assert!(began.elapsed() < LONG, "{answer:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_waits_to_be_told_to_go_on_is_told() {
    let stage = Stage::set("127.50.4.1", Made::default()).await;
    let peer = stage.peer().await;
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/"),
        ("expect", "100-continue"),
        ("content-length", "5"),
    ];
    let (mut send, mut recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&frame(HEADERS, &section(&fields))).await.unwrap();
    // Index 63 of the static table: :status 100.
    let mut informed = [0; 6];
    timeout(LONG, recv.read_exact(&mut informed)).await.expect("it is told").unwrap();
    assert_eq!(informed, [1, 4, 0, 0, 0xff, 0]);
    send.write_all(&frame(0, b"hello")).await.unwrap();
    send.finish().unwrap();
    let Became::Answered(octets) = peer.hear(recv).await else { panic!("no answer") };
    let (status, body) = read(&octets);
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&body).contains("hello"));
}

#[tokio::test]
async fn hints_come_before_the_answer() {
    let listener = TcpListener::bind("127.50.5.1:0").await.unwrap();
    let pod = Pod::named(listener.local_addr().unwrap());
    let may = Arc::new(Notify::new());
    let let_go = Arc::clone(&may);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let may = Arc::clone(&may);
            tokio::spawn(async move {
                let mut octets = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut octets).await {
                    if octets[..n].starts_with(b"OPTIONS") {
                        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                        continue;
                    }
                    let hint = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
                    stream.write_all(hint).await.unwrap();
                    may.notified().await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    let stage = Stage::before(pod, Made::default()).await;
    let peer = stage.peer().await;
    let (mut send, mut recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&frame(HEADERS, &section(&get("/")))).await.unwrap();
    send.finish().unwrap();
    let mut first = [0; 2];
    timeout(LONG, recv.read_exact(&mut first)).await.expect("it is told").unwrap();
    let mut hint = vec![0; first[1].into()];
    timeout(LONG, recv.read_exact(&mut hint)).await.expect("it is told").unwrap();
    // Index 24 of the static table: :status 103.
    assert_eq!((first[0], &hint[..3]), (1, &[0, 0, 0xd8][..]));
    assert!(String::from_utf8_lossy(&hint).contains("</style.css>; rel=preload"), "{hint:?}");
    let_go.notify_one();
    let Became::Answered(octets) = peer.hear(recv).await else { panic!("no answer") };
    assert_eq!(read(&octets), (200, Bytes::from_static(b"ok")));
}
