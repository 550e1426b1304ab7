//! How a test asks over each transport: one row for each of `TRANSPORTS`.
//!
//! In: a stage, the address to ask from, a query's octets. Out: the reply's octets, `None` when the server says nothing.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::{PATIENCE, Stage};

/// One question over one transport.
type Ask = for<'a> fn(&'a Stage, &'a str, &'a [u8]) -> BoxFuture<'a, Option<Vec<u8>>>;

/// How to ask over a transport.
pub(crate) struct Way {
    pub(crate) transport: &'static str,
    pub(crate) ask: Ask,
}

/// Every way.
pub(crate) const WAYS: &[Way] = &[
    Way { transport: "udp", ask: |stage, from, packet| stage.raw(from, packet).boxed() },
    Way { transport: "tcp", ask: |stage, from, packet| tcp(stage, from, packet).boxed() },
];

async fn tcp(stage: &Stage, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from.parse::<std::net::Ipv4Addr>().unwrap(), 0).into()).unwrap();
    let mut stream = socket.connect(stage.addr).await.unwrap();
    let mut framed = u16::try_from(packet.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(packet);
    stream.write_all(&framed).await.unwrap();
    let read = async {
        let len = stream.read_u16().await.ok()?;
        let mut octets = vec![0; usize::from(len)];
        stream.read_exact(&mut octets).await.ok()?;
        Some(octets)
    };
    timeout(PATIENCE, read).await.ok()?
}
