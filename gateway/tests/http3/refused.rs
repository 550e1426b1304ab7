//! What is no request ends its stream, and what is no HTTP/3 the connection; others live on (RFC 9114 §4.1.2, §8).

use crate::peer::{Became, DATA, HEADERS, Peer, SETTINGS, frame, get, integer, read, section};
use crate::stage::Stage;
use crate::world::Made;

const MESSAGE: u64 = 0x10e;

fn is_ok(became: Became) -> bool {
    matches!(became, Became::Answered(octets) if read(&octets).0 == 200)
}

#[tokio::test]
async fn a_malformed_request_ends_its_stream_and_nothing_else() {
    let stage = Stage::set("127.54.0.1", Made::default()).await;
    let mut other = stage.open().await;
    let peer = stage.peer().await;
    let before = stage.pod.hits();
    for (case, more) in [
        ("connection", ("connection", "close")),
        ("keep-alive", ("keep-alive", "timeout=5")),
        ("proxy-connection", ("proxy-connection", "keep-alive")),
        ("transfer-encoding", ("transfer-encoding", "chunked")),
        ("upgrade", ("upgrade", "websocket")),
        ("te", ("te", "gzip")),
        ("uppercase", ("X-Upper", "1")),
        ("a line break", ("x-a", "1\r\nx-b: 2")),
        ("NUL", ("x-a", "1\0")),
        ("a pseudo-header field behind others", (":path", "/other")),
        ("a pseudo-header field of answers", (":status", "200")),
        ("another host", ("host", "b.test")),
        ("a length that is none", ("content-length", "x")),
    ] {
        let fields = [get("/"), vec![("x-first", "1"), more]].concat();
        let became = peer.ask(&fields).await;
        assert_eq!(became, Became::Reset(MESSAGE), "{case}");
    }
    for missing in 0..4 {
        let mut fields = get("/");
        let (name, _) = fields.remove(missing);
        assert_eq!(peer.ask(&fields).await, Became::Reset(MESSAGE), "without {name}");
    }
    let twice = [vec![(":path", "/other")], get("/")].concat();
    assert_eq!(peer.ask(&twice).await, Became::Reset(MESSAGE), "a pseudo-header field twice");
    assert_eq!(peer.say(&[]).await, Became::Reset(0x10d), "nothing at all");
    assert!(is_ok(peer.ask(&get("/")).await), "the connection lives on");
    assert_eq!(other.get("a.test", "/").await.unwrap().status, 200, "and so do others");
    assert_eq!(stage.pod.hits() - before, 2, "no endpoint saw anything else");
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says() {
    let stage = Stage::set("127.54.1.1", Made::default()).await;
    let peer = stage.peer().await;
    let head = |length: &'static str| {
        let mut fields = get("/");
        fields[0].1 = "POST";
        frame(HEADERS, &section(&[fields, vec![("content-length", length)]].concat()))
    };
    for (case, octets) in [
        ("longer", [head("3"), frame(DATA, b"abcd")].concat()),
        ("shorter", [head("5"), frame(DATA, b"abcd")].concat()),
        (
            "shorter before trailers",
            [head("5"), frame(DATA, b"abcd"), frame(HEADERS, &section(&[("x-a", "1")]))].concat(),
        ),
        (
            "a pseudo-header field in trailers",
            [head("4"), frame(DATA, b"abcd"), frame(HEADERS, &section(&[(":path", "/")]))].concat(),
        ),
    ] {
        let Became::Answered(answer) = peer.say(&octets).await else { panic!("{case}: no answer") };
        assert_eq!(read(&answer).0, 400, "{case}");
    }
    // That nothing comes may be known with the head, or only later.
    let missing = peer.say(&head("5")).await;
    let refused = matches!(&missing, Became::Answered(octets) if read(octets).0 == 400);
    assert!(refused || missing == Became::Reset(MESSAGE), "{missing:?}");
    assert!(stage.pod.busy.posts.lock().unwrap().iter().all(|body| body != "abcd"), "no endpoint took one for whole");
    assert!(is_ok(peer.say(&[head("4"), frame(DATA, b"ab"), frame(0x40, b"?"), frame(DATA, b"cd")].concat()).await));
}

#[tokio::test]
async fn frames_out_of_place_end_the_connection() {
    let stage = Stage::set("127.54.2.1", Made::default()).await;
    let mut other = stage.open().await;
    for (case, octets, code) in [
        ("data before the head", frame(DATA, b"x"), 0x105),
        ("settings", frame(SETTINGS, &[]), 0x105),
        ("a push promise", frame(5, &[0]), 0x105),
        ("a frame of HTTP/2", frame(6, &[0]), 0x105),
        ("an end within a frame", [&integer(HEADERS)[..], &integer(50), b"abc"].concat(), 0x106),
        ("a section that needs a table", frame(HEADERS, &[1, 0, 0x80]), 0x200),
        ("a section that is cut", frame(HEADERS, &[0, 0, 0x51, 0x20, b'/']), 0x200),
    ] {
        assert_eq!(stage.peer().await.say(&octets).await, Became::Ended(code), "{case}");
    }
    assert_eq!(other.get("a.test", "/").await.unwrap().status, 200, "others live on");
}

#[tokio::test]
async fn streams_of_one_direction_are_what_they_may_be() {
    let stage = Stage::set("127.54.3.1", Made::default()).await;
    let mut other = stage.open().await;
    for (case, octets, code) in [
        ("no settings first", [vec![0], frame(7, &[0])].concat(), 0x10a),
        ("a setting of HTTP/2", [vec![0], frame(SETTINGS, &[2, 0])].concat(), 0x109),
        ("a setting twice", [vec![0], frame(SETTINGS, &[6, 1, 6, 1])].concat(), 0x109),
        ("settings without an end", [&[0][..], &integer(SETTINGS), &integer(1 << 40)].concat(), 0x107),
        ("settings twice", [vec![0], frame(SETTINGS, &[]), frame(SETTINGS, &[])].concat(), 0x105),
        ("a request on it", [vec![0], frame(SETTINGS, &[]), frame(HEADERS, &section(&get("/")))].concat(), 0x105),
        ("a push that was never promised", [vec![0], frame(SETTINGS, &[]), frame(3, &[0])].concat(), 0x108),
        ("an id that goes back", [vec![0], frame(SETTINGS, &[]), frame(13, &[9]), frame(13, &[3])].concat(), 0x108),
        ("a push", vec![1], 0x103),
        ("a table", vec![2, 0x3f, 0xe1, 0x1f], 0x201),
    ] {
        let connection = stage.caller().connect(stage.world.https).await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&octets).await.unwrap();
        let peer = Peer { connection, control: stream };
        assert_eq!(peer.ended().await, Became::Ended(code), "{case}");
    }
    // A control stream that ends, and a second one.
    for (second, code) in [(false, 0x104), (true, 0x103)] {
        let mut peer = stage.peer().await;
        if second {
            peer.connection
                .open_uni()
                .await
                .unwrap()
                .write_all(&[vec![0], frame(SETTINGS, &[])].concat())
                .await
                .unwrap();
        } else {
            peer.control.finish().unwrap();
        }
        assert_eq!(peer.ended().await, Became::Ended(code), "{second}");
    }
    // What nobody knows means nothing.
    let mut peer = stage.peer().await;
    peer.control.write_all(&[frame(0xf0700, b"u=1"), frame(0x21, b"grease"), frame(7, &[0])].concat()).await.unwrap();
    let mut unknown = peer.connection.open_uni().await.unwrap();
    unknown.write_all(&[0x40, 0x54, 1, 2, 3]).await.unwrap();
    assert!(is_ok(peer.ask(&get("/")).await));
    assert_eq!(other.get("a.test", "/").await.unwrap().status, 200, "others live on");
}
