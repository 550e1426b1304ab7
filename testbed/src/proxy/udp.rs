//! UDP through a bad link: a socket to the target for each client, a bounded line of packets with their due times.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dice::Dice;
use super::{Direction, Link};

const PACKETS_MAX: usize = 1024;
const CLIENTS_MAX: usize = 1024;
const PACKET_BYTES_MAX: usize = 65535;
/// A client that says nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);

type Line = mpsc::Sender<(Instant, Bytes)>;

/// Carries until it is dropped.
pub(super) async fn serve(socket: UdpSocket, target: SocketAddr, link: watch::Receiver<Link>) {
    let socket = Arc::new(socket);
    let mut clients: HashMap<SocketAddr, Line> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut dice = Dice::new(1);
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        let (size, client) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // An ICMP error about an earlier answer of ours.
                Err(_) => continue,
            },
            Some(_) = tasks.join_next() => {
                clients.retain(|_, line| !line.is_closed());
                continue;
            }
        };
        if clients.get(&client).is_none_or(mpsc::Sender::is_closed) {
            if clients.len() >= CLIENTS_MAX {
                continue;
            }
            let (line, due) = mpsc::channel(PACKETS_MAX);
            tasks.spawn(carry(Arc::clone(&socket), client, target, due, link.clone(), clients.len() as u64 + 2));
            clients.insert(client, line);
        }
        if let Some(line) = clients.get(&client) {
            pass(line, &buffer[..size], Direction::ToTarget, *link.borrow(), &mut dice);
        }
    }
}

/// Puts a packet on its way, unless the link holds or loses it or the line is full.
fn pass(line: &Line, packet: &[u8], direction: Direction, link: Link, dice: &mut Dice) {
    if link.holds(direction) || dice.lost(link.loss) {
        return;
    }
    let _ = line.try_send((Instant::now() + link.delay, Bytes::copy_from_slice(packet)));
}

async fn carry(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    target: SocketAddr,
    mut due: mpsc::Receiver<(Instant, Bytes)>,
    link: watch::Receiver<Link>,
    seed: u64,
) {
    let any = SocketAddr::new(if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() }, 0);
    let Ok(server) = UdpSocket::bind(any).await else { return };
    if server.connect(target).await.is_err() {
        return;
    }
    let to_target = async {
        while let Ok(Some((at, packet))) = tokio::time::timeout(IDLE, due.recv()).await {
            tokio::time::sleep_until(at).await;
            let _ = server.send(&packet).await;
        }
    };
    let (line, mut answers) = mpsc::channel(PACKETS_MAX);
    let receive = async {
        let mut dice = Dice::new(seed);
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            // A refused port is an error here and silence for the client, as on a real link.
            if let Ok(size) = server.recv(&mut buffer).await {
                pass(&line, &buffer[..size], Direction::ToClient, *link.borrow(), &mut dice);
            }
        }
    };
    let to_client = async {
        while let Some((at, packet)) = answers.recv().await {
            tokio::time::sleep_until(at).await;
            let _ = socket.send_to(&packet, client).await;
        }
    };
    tokio::select! {
        () = to_target => {}
        () = receive => {}
        () = to_client => {}
    }
}
