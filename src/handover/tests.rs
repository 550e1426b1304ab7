//! Two gateways over a Unix socket: what goes along, who is refused, and that a failed successor changes nothing.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use atoll_reach::{Connect as _, Listen as _, RelayTable, System};
use tokio_util::sync::CancellationToken;

use super::wire::{Message, knock};
use super::*;
use crate::config::Listen;

fn any() -> Listen {
    Listen { key: "listen.http", at: "127.0.0.1:0".parse().unwrap(), chosen: true }
}

fn ports_of(sockets: &Arc<Sockets>) -> Opened {
    Opened { sockets: Arc::clone(sockets), packets: Arc::new(Packets::new(Turns::new(true).ports)) }
}

/// A gateway's side that gives, its sockets, and what tells that it gave.
fn giving(path: &Path, sockets: &Arc<Sockets>) -> (Turns, CancellationToken, CancellationToken) {
    let (turns, shutdown, leaves) = (Turns::new(true), CancellationToken::new(), CancellationToken::new());
    let packets = Arc::new(Packets::new(turns.ports.clone()));
    let giver = Giver::open(path, Arc::clone(sockets), leaves.clone(), turns.clone(), packets, RelayTable::default());
    tokio::spawn(giver.unwrap().serve(shutdown.clone()));
    (turns, shutdown, leaves)
}

#[tokio::test]
async fn sockets_go_to_the_next_process_by_name_and_clients_notice_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    let old = Sockets::new(BTreeMap::new());
    let (http, ports) = (old.accept(any()).unwrap(), ports_of(&old));
    let at = http.local_addr();
    // More than fit one message, one that is closed again, and one by UDP.
    let local = "127.0.0.1:0".parse().unwrap();
    let mut opened = Vec::new();
    for _ in 0..70 {
        let port = System::default().tcp(local).await.unwrap().local_addr();
        opened.push(ports.tcp(port).await.unwrap());
    }
    let gone = opened.pop().unwrap().local_addr();
    let udp = tokio::net::UdpSocket::bind(local).await.unwrap().local_addr().unwrap();
    let packets = ports.udp(udp).await.unwrap();
    let (turns, shutdown, _) = giving(&path, &old);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let taken = take(&path).await.unwrap().unwrap();
    assert_eq!(taken.sockets.len(), 71, "{:?}", taken.sockets.keys());
    assert!(!taken.sockets.contains_key(&format!("tcp {gone}")));
    assert!(*turns.ports.borrow(), "nothing is over before the next one is ready");
    let mut taken = taken;
    let new = Sockets::new(std::mem::take(&mut taken.sockets));
    let mut again = new.accept(any()).unwrap();
    assert_eq!(again.local_addr(), at, "a port of 0 is the one that it was");
    // Whoever waits in the queue is served by the next process.
    let waiting = System::default().connect("127.0.0.1", at.port()).await.unwrap();
    assert!(taken.relays().await.unwrap().is_empty());
    assert!(*turns.ports.borrow() && !*turns.relay.borrow(), "agents come to the next one first");
    taken.ready(None).await.unwrap();
    shutdown.cancelled().await;
    assert!(!*turns.ports.borrow());
    drop((http, old));
    again.accept().await.unwrap();
    drop(waiting);
    let ports = ports_of(&new);
    let first = opened[0].local_addr();
    assert!(tokio::net::TcpListener::bind(first).await.is_err());
    assert_eq!(ports.tcp(first).await.unwrap().local_addr(), first);
    drop(packets);
    assert_eq!(ports.udp(udp).await.unwrap().local_addr().unwrap(), udp);
    ports.closed_udp(udp);
    assert_eq!(new.close_unwanted(), 68, "what nobody wants is closed");
    drop(opened);
    assert!(tokio::net::TcpListener::bind(first).await.is_ok());
}

#[tokio::test]
async fn a_successor_that_fails_is_one_that_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    assert!(take(&path).await.unwrap().is_none(), "nobody is there");
    let sockets = Sockets::new(BTreeMap::new());
    let http = sockets.accept(any()).unwrap();
    let (turns, shutdown, leaves) = giving(&path, &sockets);
    for _ in 0..3 {
        let taken = take(&path).await.unwrap().unwrap();
        taken.relays().await.unwrap();
    }
    // One that makes no sense, and one that says nothing more.
    let peer = knock(&path).unwrap().unwrap();
    peer.send(&Message::Drains, &[]).await.unwrap();
    assert!(peer.receive().await.is_err());
    assert!(!shutdown.is_cancelled());
    assert!(!leaves.is_cancelled());
    leave(&path).await.unwrap();
    assert!(leaves.is_cancelled(), "it says that it is not ready, and goes on");
    let taken = take(&path).await.unwrap().unwrap();
    assert_eq!(taken.sockets.keys().collect::<Vec<_>>(), ["listen.http"]);
    assert!(*turns.ports.borrow() && *turns.relay.borrow(), "the relay's port, too");
    shutdown.cancel();
    drop(http);
    while path.exists() {
        tokio::task::yield_now().await;
    }
    let error = leave(&path).await.unwrap_err();
    assert_eq!(crate::error::code(&error), 4, "{error}");
}

#[tokio::test]
async fn another_protocol_is_refused_by_both_sides_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    let sockets = Sockets::new(BTreeMap::new());
    let (turns, ..) = giving(&path, &sockets);
    let peer = knock(&path).unwrap().unwrap();
    let hello = Message::Hello { protocol: PROTOCOL + 1, version: "9.9.9".to_owned(), pid: 7 };
    peer.send(&hello, &[]).await.unwrap();
    let (Message::Refused { why }, none) = peer.receive().await.unwrap() else { panic!("it is refused") };
    assert!(why.contains("9.9.9") && why.contains("stop the running one") && none.is_empty(), "{why}");
    assert!(*turns.ports.borrow());
}

#[tokio::test]
async fn a_socket_of_another_address_is_not_taken_for_the_one_that_is_wanted() {
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = bound.local_addr().unwrap();
    let handed = || BTreeMap::from([("listen.http".to_owned(), bound.as_fd().try_clone_to_owned().unwrap())]);
    let same = Sockets::new(handed()).accept(Listen { key: "listen.http", at, chosen: true }).unwrap();
    assert_eq!(same.local_addr(), at);
    let elsewhere = Listen { key: "listen.http", at: "127.0.0.2:0".parse().unwrap(), chosen: true };
    assert_ne!(Sockets::new(handed()).accept(elsewhere).unwrap().local_addr(), at);
}

#[tokio::test]
async fn another_user_is_refused_even_where_the_file_would_let_them_in() {
    if !nix::unistd::Uid::effective().is_root() {
        return; // Only root can be somebody else.
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    let sockets = Sockets::new(BTreeMap::new());
    let _http = sockets.accept(any()).unwrap();
    let (turns, ..) = giving(&path, &sockets);
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    open(dir.path(), 0o755);
    let knocks = "use Socket; socket(S, AF_UNIX, SOCK_SEQPACKET, 0) && connect(S, pack_sockaddr_un($ARGV[0])) or die $!; \
        recv(S, $said, 4096, 0); print $said";
    for (mode, says) in [(0o600, "Permission denied"), (0o777, "another user")] {
        open(&path, mode);
        let mut command = tokio::process::Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/perl", "-e", knocks])
            .arg(&path);
        let ran = command.output().await.unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(says), "{mode:o}: {said}");
    }
    assert!(*turns.ports.borrow());
}
