//! QUIC's packets among gateways that follow one another: each hands back what is of connections of the one before, over a Unix socket of the two.
//!
//! In: a pair of datagram sockets that the next process makes and whose other end goes with `ready`. Out: [`Succession`]. A packet that finds no room
//! is lost, as any may be. Form of a datagram: a line of JSON, then the octets. One that has drained before the one before it has stays, and passes on
//! what is of that one's connections: however quickly processes follow one another, each connection is heard by its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use atoll_reach::{Packet, Succession};
use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Packets that wait for one port.
const WAITING_MAX: usize = 256;
/// Between two looks whether the process before is there still.
const LOOK: Duration = Duration::from_millis(250);
/// What is read at once from a UDP socket, and its head.
const DATAGRAM_BYTES_MAX: usize = 66 * 1024;

/// This process's place.
#[derive(Debug)]
pub(super) struct Packets {
    key: u64,
    turn: watch::Sender<bool>,
    before: OnceLock<Before>,
    doors: Mutex<HashMap<SocketAddr, mpsc::Sender<Packet>>>,
}

/// The process before this one.
#[derive(Debug)]
struct Before {
    /// Its key, and those of the ones before it.
    keys: Vec<u64>,
    pipe: UnixDatagram,
    gone: AtomicBool,
}

impl Before {
    /// Whether it is there to take it; where it has no room the datagram is lost.
    fn send(&self, datagram: &[u8]) -> bool {
        match self.pipe.try_send(datagram) {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => true,
            Err(_) => {
                self.gone.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    at: SocketAddr,
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<u8>,
    stride: usize,
}

impl Packets {
    /// `turn`: whether the ports are this process's.
    pub(super) fn new(turn: watch::Sender<bool>) -> Self {
        let key = u64::from_be_bytes(rand());
        Self { key, turn, before: OnceLock::new(), doors: Mutex::default() }
    }

    /// There is a process before this one, with these keys. What it is to hold, to hear of its packets.
    pub(super) fn follow(&self, keys: Vec<u64>) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixDatagram::pair()?;
        let theirs: OwnedFd = theirs.into_std()?.into();
        let _ = self.before.set(Before { keys, pipe: ours, gone: AtomicBool::new(false) });
        Ok(theirs)
    }

    /// This process's key, and those of the ones before it that may have connections.
    pub(super) fn keys(&self) -> Vec<u64> {
        std::iter::once(self.key).chain(Succession::before(self)).collect()
    }

    /// Takes what the next process hands back, until `end`; then passes it on to the process before, until that has ended as well.
    pub(super) async fn receive(&self, pipe: OwnedFd, end: CancellationToken) {
        let taking = async {
            let pipe = UnixDatagram::from_std(pipe.into())?;
            if let Some(broken) = end.run_until_cancelled(self.take(&pipe, true)).await {
                return broken;
            }
            tokio::select! {
                broken = self.take(&pipe, false) => broken,
                () = self.until_first() => Ok(()),
            }
        };
        if let Err(error) = taking.await {
            tracing::debug!(%error, "handover: the next gateway hands no packets back any more");
        }
    }

    /// `serves`: whether ports of this process may have connections still.
    async fn take(&self, pipe: &UnixDatagram, serves: bool) -> io::Result<()> {
        let mut octets = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let length = pipe.recv(&mut octets).await?;
            let Some(packet) = decode(&octets[..length]) else { continue };
            // Whose it is the port looks again: it hands on what is not its own.
            let door = self.doors().get(&packet.at).filter(|door| serves && !door.is_closed()).cloned();
            match door {
                Some(door) => drop(door.try_send(packet)),
                None => drop(self.hand_back(&packet)),
            }
        }
    }

    /// Until there is no process before this one.
    async fn until_first(&self) {
        // A datagram of nothing is nobody's; that it can't be sent says that nobody is there.
        while self.living().is_some_and(|before| before.send(&[])) {
            sleep(LOOK).await;
        }
    }

    /// The process before, as far as is known.
    fn living(&self) -> Option<&Before> {
        self.before.get().filter(|before| !before.gone.load(Ordering::Relaxed))
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<SocketAddr, mpsc::Sender<Packet>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Succession for Packets {
    fn key(&self) -> u64 {
        self.key
    }

    fn turn(&self) -> watch::Receiver<bool> {
        self.turn.subscribe()
    }

    fn before(&self) -> Vec<u64> {
        self.living().map(|before| before.keys.clone()).unwrap_or_default()
    }

    fn hand_back(&self, packet: &Packet) -> bool {
        self.living().is_some_and(|before| before.send(&encode(packet)))
    }

    fn handed(&self, at: SocketAddr) -> mpsc::Receiver<Packet> {
        let (send, receive) = mpsc::channel(WAITING_MAX);
        self.doors().insert(at, send);
        receive
    }
}

fn encode(packet: &Packet) -> Vec<u8> {
    let Packet { at, from, to, ecn, stride, octets } = packet;
    let head = Head { at: *at, from: *from, to: *to, ecn: *ecn, stride: *stride };
    // Numbers and addresses always have a form.
    let mut datagram = serde_json::to_vec(&head).unwrap_or_default();
    datagram.push(b'\n');
    datagram.extend_from_slice(octets);
    datagram
}

fn decode(datagram: &[u8]) -> Option<Packet> {
    let end = datagram.iter().position(|b| *b == b'\n')?;
    let Head { at, from, to, ecn, stride } = serde_json::from_slice(&datagram[..end]).ok()?;
    Some(Packet { at, from, to, ecn, stride, octets: datagram[end + 1..].to_vec() })
}

fn rand() -> [u8; 8] {
    let mut octets = [0; 8];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut octets).expect("the system has random octets");
    octets
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn packet(octets: &[u8]) -> Packet {
        let (at, from) = ("127.0.0.1:443".parse().unwrap(), "[::1]:5".parse().unwrap());
        Packet { at, from, to: Some("127.0.0.1".parse().unwrap()), ecn: Some(1), stride: 3, octets: octets.to_vec() }
    }

    #[test]
    fn a_packet_is_the_same_at_the_other_end() {
        for octets in [&b""[..], b"abc\ndef", &[0; 1500]] {
            assert_eq!(decode(&encode(&packet(octets))), Some(packet(octets)));
        }
        assert_eq!(decode(b"no head"), None);
        assert_eq!(decode(b"{}\nx"), None);
    }

    #[tokio::test]
    async fn packets_go_back_to_the_process_before_as_long_as_that_is_there() {
        let place = || Packets::new(watch::Sender::new(true));
        let (old, new) = (Arc::new(place()), place());
        assert!(!new.hand_back(&packet(b"x")), "nobody is before it");
        let mut door = old.handed(packet(b"").at);
        let pipe = new.follow(old.keys()).unwrap();
        assert_eq!((Succession::before(&new), new.keys().len()), (vec![old.key()], 2));
        let (ours, end) = (Arc::clone(&old), CancellationToken::new());
        let (ended, receiving) = (end.clone(), tokio::spawn(async move { ours.receive(pipe, end).await }));
        for octets in [&b"one"[..], b"two"] {
            assert!(new.hand_back(&packet(octets)));
            let got = timeout(Duration::from_secs(5), door.recv()).await.unwrap().unwrap();
            assert_eq!(got, packet(octets));
        }
        ended.cancel();
        receiving.await.unwrap();
        assert!(!new.hand_back(&packet(b"three")), "it is gone");
        assert!(Succession::before(&new).is_empty());
    }
    #[tokio::test]
    async fn one_that_has_drained_passes_on_until_the_process_before_it_has_ended() {
        let place = || Arc::new(Packets::new(watch::Sender::new(true)));
        let (first, second, third) = (place(), place(), place());
        let receive = |of: &Arc<Packets>, pipe| {
            let (of, end) = (Arc::clone(of), CancellationToken::new());
            (end.clone(), tokio::spawn(async move { of.receive(pipe, end).await }))
        };
        let (mut door, own) = (first.handed(packet(b"").at), second.handed(packet(b"").at));
        let (first_ends, first_receives) = receive(&first, second.follow(first.keys()).unwrap());
        let (second_ends, second_receives) = receive(&second, third.follow(second.keys()).unwrap());
        assert_eq!(third.keys(), [third.key(), second.key(), first.key()]);
        drop(own);
        second_ends.cancel();
        for octets in [&b"one"[..], b"two"] {
            assert!(third.hand_back(&packet(octets)));
            let got = timeout(Duration::from_secs(5), door.recv()).await.unwrap().unwrap();
            assert_eq!(got, packet(octets));
        }
        assert!(!second_receives.is_finished(), "it stays for the first one's connections");
        first_ends.cancel();
        timeout(Duration::from_secs(5), first_receives).await.unwrap().unwrap();
        timeout(Duration::from_secs(5), second_receives).await.unwrap().unwrap();
        assert!(!third.hand_back(&packet(b"three")), "all are gone");
    }
}
