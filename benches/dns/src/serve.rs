//! Atoll's DNS server as the script starts it, and the DNS of its members.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use atoll_dns::{Config, Encrypted, Resources, Server};
use atoll_reach::{Dialer, Listen as _, RelayTable, Route, Routes, System};
use atoll_wire::follow::{Report, Snapshot};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::federation::{DEAD_AT, Size, topology};
use crate::{Result, say, secure};

/// Ports of DoT, DoH and DoQ, after that of plain DNS.
const SECURE: [u16; 3] = [1000, 2000, 3000];
/// Types (RFC 2782, RFC 1035).
const SRV: u8 = 33;
const PTR: u8 = 12;

/// A running server, and the hub's word in our hand.
pub(crate) struct Running {
    pub(crate) topology: watch::Sender<Snapshot>,
    pub(crate) server: Server,
    report: watch::Receiver<Report>,
}

/// Serves until it is killed; encrypted transports, too, where there is a folder with a certificate.
pub(crate) fn serve(at: SocketAddr, size: Size, folder: Option<&Path>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let running = start(at, size, folder).await?;
        say("ready", running.server.is_ready())?;
        let mut snapshot = tokio::time::interval(std::time::Duration::from_secs(5));
        loop {
            // The hub speaks every few seconds.
            snapshot.tick().await;
            running.topology.send_modify(|s| s.heard = Some(Instant::now()));
            drop(running.report.borrow());
        }
    })
}

/// A server at `at`.
pub(crate) async fn start(at: SocketAddr, size: Size, folder: Option<&Path>) -> Result<Running> {
    let topology = topology(size)?;
    let routes = Routes::default();
    routes.set(topology.clusters.keys().map(|c| (c.as_str().to_owned(), Route::Direct)).collect());
    let (sender, followed) = watch::channel(Snapshot { topology: Arc::new(topology), heard: Some(Instant::now()) });
    let (report, reported) = watch::channel(Report::default());
    let (started, start) = oneshot::channel();
    let system = System::default();
    let mut encrypted = Encrypted::default();
    if let Some(folder) = folder {
        let [tls, https, quic] = SECURE.map(|more| SocketAddr::new(at.ip(), at.port() + more));
        encrypted = Encrypted {
            tls: Some(system.tcp(tls).await?),
            https: Some(system.tcp(https).await?),
            quic: Some(UdpSocket::bind(quic)?),
            h3: None,
            certificate: Some(secure::shown(folder)?),
        };
    }
    let resources = Resources {
        topology: followed,
        dialer: Dialer::new(Arc::new(system.clone()), RelayTable::default(), routes),
        report,
        connect: Arc::new(system.clone()),
        listen: Arc::new(system.clone()),
        udp: vec![UdpSocket::bind(at)?],
        tcp: system.tcp(at).await?,
        encrypted,
        files: atoll_dns::Files::default(),
        taps: Vec::new(),
        line: atoll_wire::follow::Line::dead(),
        cookies: None,
        metrics: prometheus::Registry::new(),
        dir: None,
        started: Some(started),
    };
    // The generator's word on its clients' networks counts.
    let config = Config { cache_bytes: Some(1 << 30), ecs: vec!["127.0.0.0/8".parse()?], ..Config::default() };
    tokio::spawn(async move {
        if let Err(error) = atoll_dns::run(config, resources, CancellationToken::new()).await {
            let _ = say("error", error);
        }
    });
    Ok(Running { topology: sender, server: start.await?, report: reported })
}

/// Answers every question with what a member would say, until it is killed. Who asks the member that is dead gets not even a refusal.
pub(crate) fn member(at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(at)?;
    let _silent = (UdpSocket::bind(DEAD_AT)?, std::net::TcpListener::bind(DEAD_AT)?);
    let mut octets = [0; 4096];
    say("ready", true)?;
    loop {
        let (length, from) = socket.recv_from(&mut octets)?;
        let Some(end) = crate::load::question_end(&octets[..length]) else { continue };
        octets[2] |= 0x84;
        octets[3] = 0x80;
        octets[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
        let name = octets[12..end - 4].to_vec();
        let kind = octets[end - 3];
        let (ttl, data) = match kind {
            SRV => (3600, [&[0, 0, 0, 100, 0, 80], behind(&name, 2)].concat()),
            // There are too few addresses for each to be a new one.
            PTR => (0, b"\x03web\x04shop\x03svc\x07cluster\x05local\0".to_vec()),
            _ => (3600_u32, vec![10, 0, 0, 9]),
        };
        let kind = if matches!(kind, SRV | PTR) { kind } else { 1 };
        let answer = [&[0xc0, 12, 0, kind, 0, 1], &ttl.to_be_bytes()[..], &[0, data.len() as u8], &data].concat();
        octets[end..end + answer.len()].copy_from_slice(&answer);
        socket.send_to(&octets[..end + answer.len()], from)?;
    }
}

/// A name of the wire without its first labels.
fn behind(mut name: &[u8], labels: usize) -> &[u8] {
    for _ in 0..labels {
        name = name.get(1 + usize::from(*name.first().unwrap_or(&0))..).unwrap_or_default();
    }
    name
}
