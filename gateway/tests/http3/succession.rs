//! Gateways that follow one another at a UDP port: new connections begin with the last one, and those of the one before end there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use atoll_gateway::Limits;
use atoll_reach::{Accept, Listen, Packet, Succession, System};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::quic::{LONG, asks};
use crate::stage::Stage;
use crate::world::Made;

/// The socket of a port that all have.
type Held = Arc<OnceLock<std::net::UdpSocket>>;

/// Where one of them listens, and its place.
#[derive(Debug)]
struct Place {
    key: u64,
    turn: watch::Sender<bool>,
    before: Vec<Arc<Place>>,
    door: Mutex<Option<mpsc::Sender<Packet>>>,
}

impl Place {
    fn new(key: u64, turn: bool, before: &[Arc<Self>]) -> Arc<Self> {
        Arc::new(Self { key, turn: watch::Sender::new(turn), before: before.to_vec(), door: Mutex::default() })
    }
}

impl Succession for Place {
    fn key(&self) -> u64 {
        self.key
    }

    fn turn(&self) -> watch::Receiver<bool> {
        self.turn.subscribe()
    }

    fn before(&self) -> Vec<u64> {
        self.before.iter().map(|place| place.key).collect()
    }

    fn hand_back(&self, packet: &Packet) -> bool {
        let Some(before) = self.before.last() else { return false };
        before.door.lock().unwrap().as_ref().is_some_and(|door| door.try_send(packet.clone()).is_ok())
    }

    fn handed(&self, _: SocketAddr) -> mpsc::Receiver<Packet> {
        let (send, receive) = mpsc::channel(64);
        *self.door.lock().unwrap() = Some(send);
        receive
    }
}

/// Who opens ports: UDP ports are those that the first one opened.
struct Shared(Held, Arc<Place>);

#[async_trait]
impl Listen for Shared {
    async fn tcp(&self, addr: SocketAddr) -> io::Result<Box<dyn Accept>> {
        System::default().tcp(addr).await
    }

    async fn udp(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        if self.0.get().is_none() {
            let bound = std::net::UdpSocket::bind(addr)?;
            bound.set_nonblocking(true)?;
            let _ = self.0.set(bound);
        }
        UdpSocket::from_std(self.0.get().unwrap().try_clone()?)
    }

    fn succession(&self) -> Option<Arc<dyn Succession>> {
        Some(Arc::clone(&self.1) as _)
    }
}

#[tokio::test]
async fn three_that_follow_one_another_serve_new_connections_at_once_and_end_their_own() {
    let held = Held::default();
    let made = |place: &Arc<Place>, instance: &'static str| {
        let made = Made::default();
        let limits = Limits { drain: LONG, ..made.limits };
        Made { limits, instance, listen: Some(Arc::new(Shared(Arc::clone(&held), Arc::clone(place)))), ..made }
    };
    let one = Place::new(1, true, &[]);
    let mut stage = Stage::set("127.56.9.1", made(&one, "gateway-1")).await;
    let at = stage.world.https;
    let mut of_one = stage.open().await;
    assert_eq!(of_one.get("a.test", "/").await.unwrap().status, 200);

    let (two, mut ended) = (Place::new(2, false, std::slice::from_ref(&one)), Vec::new());
    let three = Place::new(3, false, &[Arc::clone(&one), Arc::clone(&two)]);
    let mut second = stage.world.beside(made(&two, "gateway-2")).await;
    let mut third = stage.world.beside(made(&three, "gateway-3")).await;
    let began = Instant::now();
    while !(second.server.is_ready() && third.server.is_ready()) {
        assert!(began.elapsed() < LONG, "they have no table");
        sleep(Duration::from_millis(20)).await;
    }
    // Who is between hands on for as long as it is there, so the first ends before the second.
    // A request is under way at the first while the second takes its place, and one at the second while the third does.
    let mut open = of_one.sender.send_request(asks("a.test", "GET /?wait_ms=2500", &[])).await.unwrap();
    open.finish().await.unwrap();
    let until_busy = async |count: usize| {
        while stage.pod.busy.now.load(std::sync::atomic::Ordering::SeqCst) < count {
            assert!(began.elapsed() < LONG);
            sleep(Duration::from_millis(5)).await;
        }
    };
    until_busy(1).await;
    two.turn.send_replace(true);
    one.turn.send_replace(false);
    let caller = stage.caller();
    let mut of_two = caller.open(at).await.unwrap();
    assert_eq!(of_two.get("a.test", "/").await.unwrap().status, 200);
    assert_eq!(second.server.connections()["all"], 1, "{:#}", second.server.connections());
    let mut slow = of_two.sender.send_request(asks("a.test", "GET /?wait_ms=5000", &[])).await.unwrap();
    slow.finish().await.unwrap();
    until_busy(2).await;
    three.turn.send_replace(true);
    two.turn.send_replace(false);
    let mut of_three = caller.open(at).await.unwrap();
    assert_eq!(of_three.get("a.test", "/").await.unwrap().status, 200);
    assert_eq!(third.server.connections()["all"], 1, "{:#}", third.server.connections());
    drop(caller);
    let rest = async {
        assert_eq!(open.recv_response().await.unwrap().status(), 200, "by way of the third and the second");
        while open.recv_data().await.unwrap().is_some() {}
        assert_eq!(slow.recv_response().await.unwrap().status(), 200);
        while slow.recv_data().await.unwrap().is_some() {}
        for client in [&mut of_one, &mut of_two] {
            ended.push(timeout(LONG, &mut client.driver).await.expect("it is told of the end").unwrap());
        }
    };
    tokio::join!(stage.world.stop(), second.stop(), rest);
    assert!(ended.iter().all(h3::error::ConnectionError::is_h3_no_error), "{ended:?}");
    assert_eq!(of_three.get("a.test", "/").await.unwrap().status, 200, "the last one goes on");
    third.stop().await;
}
