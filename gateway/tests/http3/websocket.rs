//! WebSocket by extended CONNECT (RFC 9220): octets both ways through the gateway. The library `h3` knows no such protocol, so a peer of our own
//! asks.

use tokio::time::timeout;

use crate::peer::{Became, DATA, HEADERS, SETTINGS, frame, read, section};
use crate::quic::LONG;
use crate::stage::Stage;
use crate::world::Made;

fn connect(protocol: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/ws"),
        ("sec-websocket-version", "13"),
    ];
    frame(HEADERS, &section(&fields))
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_of_data_frames() {
    let stage = Stage::set("127.53.0.1", Made::default()).await;
    let peer = stage.peer().await;
    // What the gateway allows stands in its settings: ENABLE_CONNECT_PROTOCOL.
    let mut control = timeout(LONG, peer.connection.accept_uni()).await.unwrap().unwrap();
    let mut said = [0; 10];
    control.read_exact(&mut said).await.unwrap();
    assert_eq!((said[0], said[1]), (0, SETTINGS as u8));
    assert_eq!(said[8..], [8, 1], "{said:?}");
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&connect("websocket")).await.unwrap();
    // In pieces, with a frame that means nothing between them.
    for octets in [frame(DATA, b"he"), frame(0x21, b"grease"), frame(DATA, b"llo")] {
        send.write_all(&octets).await.unwrap();
    }
    let Became::Answered(octets) = peer.hear(recv).await else { panic!("no answer") };
    let (status, body) = read(&octets);
    assert_eq!((status, &*body), (200, &b"web heard hello"[..]));
    assert!(!String::from_utf8_lossy(&octets).contains("sec-websocket-accept"));
}

#[tokio::test]
async fn any_other_connect_is_refused_and_a_tunnel_carries_nothing_else() {
    let stage = Stage::set("127.53.1.1", Made::default()).await;
    let peer = stage.peer().await;
    let plain = frame(HEADERS, &section(&[(":method", "CONNECT"), (":authority", "a.test:80")]));
    for connect in [plain, connect("connect-udp")] {
        let Became::Answered(octets) = peer.say(&connect).await else { panic!("no answer") };
        assert_eq!(read(&octets).0, 405);
    }
    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&connect("websocket")).await.unwrap();
    send.write_all(&frame(HEADERS, &section(&[("x-a", "1")]))).await.unwrap();
    assert_eq!(peer.hear(recv).await, Became::Ended(0x105), "only DATA is permitted");
}
