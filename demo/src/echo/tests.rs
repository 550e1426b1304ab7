//! A pod's container, asked in every protocol that it speaks.

use std::net::{IpAddr, Ipv4Addr};

use ::http::Request;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::UdpSocket};

use super::*;

struct Pod {
    tcp: SocketAddr,
    udp: SocketAddr,
    end: CancellationToken,
    tasks: TaskTracker,
}

async fn pod() -> Pod {
    let (end, tasks, gate) = (CancellationToken::new(), TaskTracker::new(), Gate::default());
    let ports = Ports::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), &[0], &[0], &gate).await.unwrap();
    let tcp = ports.doors[0].address();
    let udp = ports.hatches[0].address().unwrap();
    let identity =
        Identity { cluster: "dev".into(), pod: "web-1".into(), namespace: "shop".into(), version: "2".into() };
    ports.serve(&Arc::new(identity), &end, &tasks);
    Pod { tcp, udp, end, tasks }
}

fn told(text: &[u8]) -> Value {
    let value: Value =
        serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)));
    assert_eq!((&value["cluster"], &value["pod"]), (&"dev".into(), &"web-1".into()));
    value
}

async fn http(pod: &Pod, h2: bool, request: Request<Full<Bytes>>) -> (u16, ::http::HeaderMap, Bytes) {
    let stream = TokioIo::new(TcpStream::connect(pod.tcp).await.unwrap());
    let answer = if h2 {
        let (mut send, c) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(c);
        send.send_request(request).await.unwrap()
    } else {
        let (mut send, c) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(c);
        send.send_request(request).await.unwrap()
    };
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap();
    let mut headers = parts.headers;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    (parts.status.as_u16(), headers, body.to_bytes())
}

#[tokio::test]
async fn http_is_answered_with_what_was_asked() {
    let pod = pod().await;
    for (h2, proto) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let uri = if h2 { "http://shop.example/a?status=503&size=5" } else { "/a?status=503&size=5" };
        let request = Request::post(uri).header("x-forwarded-for", "1.2.3.4").header("host", "shop.example");
        let (status, headers, body) = http(&pod, h2, request.body(Full::from("hello")).unwrap()).await;
        let got = told(&body);
        assert_eq!((status, &headers["x-cluster"]), (503, &"dev".parse::<::http::HeaderValue>().unwrap()));
        for (key, want) in [
            ("proto", proto),
            ("method", "POST"),
            ("host", "shop.example"),
            ("path", "/a?status=503&size=5"),
            ("received", "hello"),
            ("padding", "xxxxx"),
            ("version", "2"),
            ("namespace", "shop"),
        ] {
            assert_eq!(got[key], want, "{proto} {key}");
        }
        assert_eq!(got["headers"]["X-Forwarded-For"][0], "1.2.3.4");
    }
}

#[tokio::test]
async fn grpc_answers_each_message_and_ends_well() {
    let pod = pod().await;
    let message = b"\0\0\0\0\x07\x0a\x05hello";
    let request = Request::post("http://pod/atoll.testbed.Echo/Chat").header("content-type", "application/grpc");
    let request = request.body(Full::from(message.repeat(2))).unwrap();
    let (status, headers, body) = http(&pod, true, request).await;
    assert_eq!((status, headers["grpc-status"].to_str().unwrap()), (200, "0"));
    let mut rest = &body[..];
    for _ in 0..2 {
        let len = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        // tag, and a length of two bytes: the text has between 128 and 16383
        let got = told(&rest[8..5 + len]);
        assert_eq!((&got["received"], &got["method"]), (&"hello".into(), &"Chat".into()));
        rest = &rest[5 + len..];
    }
    assert!(rest.is_empty());
}

#[tokio::test]
async fn lines_and_packets_are_answered() {
    let pod = pod().await;
    let mut tcp = TcpStream::connect(pod.tcp).await.unwrap();
    tcp.write_all(b"x\nsecond\nlast").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut all = String::new();
    tcp.read_to_string(&mut all).await.unwrap();
    let got: Vec<_> = all.lines().map(|l| told(l.as_bytes())["received"].as_str().unwrap().to_owned()).collect();
    assert_eq!(got, ["x", "second", "last"]);

    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(b"ping\n", pod.udp).await.unwrap();
    let mut packet = [0; 2048];
    let (len, _) = udp.recv_from(&mut packet).await.unwrap();
    assert_eq!(told(&packet[..len])["received"], "ping");
}

#[tokio::test]
async fn a_pod_that_ends_leaves_nothing_behind() {
    let pod = pod().await;
    let _idle = TcpStream::connect(pod.tcp).await.unwrap();
    pod.end.cancel();
    pod.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), pod.tasks.wait()).await.unwrap();
    assert!(TcpStream::connect(pod.tcp).await.is_err());
}
