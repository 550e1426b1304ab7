//! TCP through a bad link: each direction is a reader, a bounded line of chunks with their due times, and a writer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dice::Dice;
use super::{Direction, Link};

const CHUNK_BYTES_MAX: usize = 16 * 1024;
const CHUNKS_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 1024;
/// What a lost segment costs: Linux's shortest retransmission time.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Accepts until it is dropped; its connections end with it.
pub(super) async fn serve(listener: TcpListener, target: SocketAddr, link: watch::Receiver<Link>) {
    let mut connections = JoinSet::new();
    let mut seed = 0;
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                // A client that is gone before we take it is no reason to end.
                let Ok((client, _)) = accepted else { continue };
                seed += 2;
                connections.spawn(carry(client, target, link.clone(), seed));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, target: SocketAddr, link: watch::Receiver<Link>, seed: u64) {
    // A handshake is the link's first round trip: it does not get through while one way is held.
    let mut seen = link.clone();
    if seen.wait_for(|link| !link.hold_to_target && !link.hold_to_client).await.is_err() {
        return;
    }
    let delay = link.borrow().delay;
    tokio::time::sleep(delay * 2).await;
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Delay is the link's alone.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        direct(from_client, to_server, Direction::ToTarget, link.clone(), Dice::new(seed)),
        direct(from_server, to_client, Direction::ToClient, link, Dice::new(seed + 1)),
    );
}

/// Carries one direction until its end, the close included.
async fn direct(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    link: watch::Receiver<Link>,
    mut dice: Dice,
) {
    let (line, mut due) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let seen = link.clone();
    let read = async move {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES_MAX);
        loop {
            let count = from.read_buf(&mut buffer).await.unwrap_or(0);
            let now = *seen.borrow();
            let lost = dice.lost(now.loss);
            let at = Instant::now() + now.delay + if lost { RETRANSMISSION } else { Duration::ZERO };
            // An empty chunk is the close, which travels like any other.
            if line.send((at, buffer.split().freeze())).await.is_err() || count == 0 {
                return;
            }
        }
    };
    let mut seen = link;
    let write = async move {
        while let Some((at, chunk)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            if seen.wait_for(|link| !link.holds(direction)).await.is_err() {
                return;
            }
            if chunk.is_empty() || to.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
