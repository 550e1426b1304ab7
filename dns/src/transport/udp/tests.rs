//! What a thread does with its batches: over real sockets of loopback, with the allocations counted.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::socket::MsgFlags;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::slow::{Asked, Slow};
use super::worker::{Tally, Worker};
use super::*;
use crate::config::Encrypted;
use crate::wire::BYTES_MAX;
use crate::wire::tests::{responder, stage};

fn socket(at: &str, shared: bool) -> UdpSocket {
    let at: SocketAddr = at.parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.into()
}

fn packet(name: &str, edns: bool, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if edns {
        message.set_edns(Edns::new());
    }
    message.to_vec().unwrap()
}

/// A worker over one socket, a client of it, and the far end of its queue.
fn worker() -> (Worker, Arc<UdpSocket>, UdpSocket, mpsc::Receiver<Asked>) {
    let ours = Arc::new(socket("127.0.0.1:0", false));
    let client = socket("127.0.0.1:0", false);
    client.connect(ours.local_addr().unwrap()).unwrap();
    let (queue, queued) = mpsc::channel(2);
    let slow =
        Slow { queue, waiting: TaskTracker::new(), shutdown: CancellationToken::new(), handle: Handle::current() };
    let ports = Ports::new(std::slice::from_ref(&ours)).unwrap();
    (Worker::new(responder(stage(), BYTES_MAX), vec![Arc::clone(&ours)], slow, ports), ours, client, queued)
}

fn replies(client: &UdpSocket, count: usize) -> Vec<Message> {
    let mut octets = [0; 1232];
    let mut all = Vec::new();
    for _ in 0..count {
        let length = client.recv(&mut octets).unwrap();
        all.push(Message::from_vec(&octets[..length]).unwrap());
    }
    all
}

#[tokio::test]
async fn a_hit_allocates_nothing() {
    let (mut worker, ours, client, _queued) = worker();
    let names = [
        "db.atoll.internal.",
        "DB.atoll.Internal.",
        "web.shop.svc.atoll.internal.",
        "www.example.com.",
        "no.example.com.",
    ];
    let packets: Vec<Vec<u8>> = names.iter().flat_map(|name| [packet(name, false, 1), packet(name, true, 2)]).collect();
    // The first round fills what all share, the second what the thread has.
    for _ in 0..2 {
        for packet in &packets {
            client.send(packet).unwrap();
            worker.turn(&ours, MsgFlags::MSG_WAITFORONE).unwrap();
        }
        replies(&client, packets.len());
    }
    let (mut hits, mut allocations) = (0, 0);
    for round in 0..1000 {
        // Batches of all sizes; on a busy machine not all are there at once.
        let count = 1 + round % 40;
        for packet in packets.iter().cycle().take(count) {
            client.send(packet).unwrap();
        }
        let mut batch = Tally::default();
        while batch.hits + batch.misses < u64::try_from(count).unwrap() {
            let counted = measure(|| {
                let turn = worker.turn(&ours, MsgFlags::MSG_WAITFORONE).unwrap();
                batch = Tally { hits: batch.hits + turn.hits, misses: batch.misses + turn.misses };
            });
            allocations += counted.count_total;
        }
        hits += batch.hits;
        for reply in replies(&client, count) {
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        }
    }
    assert_eq!((hits, allocations), (20_500, 0));
}

#[tokio::test]
async fn what_is_no_hit_is_decided_here_or_queued_or_shed_and_the_others_go_on() {
    let (mut worker, ours, client, mut queued) = worker();
    // Every name is new: each takes its time to be decided, so that most of a batch is queued; the queue takes two.
    for id in 0..60 {
        client.send(&packet(&format!("n{id}.example.com."), false, id)).unwrap();
    }
    client.send(&[0; 5]).unwrap();
    let mut tally = Tally::default();
    while tally.hits + tally.misses < 61 {
        let turn = worker.turn(&ours, MsgFlags::MSG_WAITFORONE).unwrap();
        tally = Tally { hits: tally.hits + turn.hits, misses: tally.misses + turn.misses };
    }
    assert_eq!(tally, Tally { hits: 0, misses: 61 });
    let first = replies(&client, 1);
    assert_eq!(first[0].metadata.response_code, ResponseCode::NoError);
    assert!(queued.try_recv().is_ok(), "60 names are more than is decided at once");
    client.send(&packet(&first[0].queries[0].name.to_ascii(), false, 77)).unwrap();
    assert_eq!(worker.turn(&ours, MsgFlags::MSG_WAITFORONE), Ok(Tally { hits: 1, misses: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_share_an_address_and_end_when_told() {
    let first = socket("127.0.0.1:0", true);
    let at = first.local_addr().unwrap();
    let mut sockets =
        Sockets { udp: vec![first, socket(&at.to_string(), true)], tcp: None, encrypted: Encrypted::default() };
    let responder = responder(stage(), BYTES_MAX);
    let shutdown = CancellationToken::new();
    let serving = serve(&mut sockets, &responder, &shutdown).unwrap();
    assert_eq!(serving.len(), 2);
    let running: Vec<_> = serving.into_iter().map(tokio::spawn).collect();
    let asked = tokio::task::spawn_blocking(move || {
        // Each client has a port of its own, by which the kernel chooses the thread.
        (0..64).all(|id| {
            let client = socket("127.0.0.1:0", false);
            client.connect(at).unwrap();
            client.send(&packet("db.atoll.internal.", true, id)).unwrap();
            replies(&client, 1)[0].metadata.id == id
        })
    });
    assert!(asked.await.unwrap());
    shutdown.cancel();
    for thread in running {
        tokio::time::timeout(Duration::from_secs(5), thread).await.expect("it ends").unwrap();
    }
}

#[tokio::test]
async fn threads_end_that_nobody_came_to_await() {
    let first = socket("127.0.0.1:0", true);
    let at = first.local_addr().unwrap().to_string();
    let udp = vec![first, socket(&at, true)];
    let mut sockets = Sockets { udp, tcp: None, encrypted: Encrypted::default() };
    let serving = serve(&mut sockets, &responder(stage(), BYTES_MAX), &CancellationToken::new()).unwrap();
    assert!(UdpSocket::bind(&at).is_err(), "they have the address");
    // As when a later socket can't be used.
    drop(serving);
    for _ in 0..500 {
        if UdpSocket::bind(&at).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("they hold the address for good");
}

#[test]
fn each_thread_gets_a_socket_of_each_address() {
    let first: Vec<UdpSocket> = ["127.0.0.1:0", "127.0.0.2:0"].iter().map(|at| socket(at, true)).collect();
    let second = first.iter().map(|s| socket(&s.local_addr().unwrap().to_string(), true)).collect::<Vec<_>>();
    let want: Vec<SocketAddr> = first.iter().map(|s| s.local_addr().unwrap()).collect();
    let threads = share(first.into_iter().chain(second).collect()).unwrap();
    let got: Vec<Vec<SocketAddr>> =
        threads.iter().map(|t| t.iter().map(|s| s.local_addr().unwrap()).collect()).collect();
    assert_eq!(got, [want.clone(), want]);
    assert!(!cores().is_empty());
}
