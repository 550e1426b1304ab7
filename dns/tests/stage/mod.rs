//! The stage for tests over real loopback sockets: an Atoll DNS server, a topology that tests change, members with a scripted DNS.
#![allow(dead_code, reason = "each test program uses its part of it")]
#![allow(clippy::unwrap_used, reason = "a stage that can't be set ends the test")]

pub(crate) mod clock;
pub(crate) mod member;
pub(crate) mod ways;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::names::ServiceName;
use atoll_api::topology::{ClusterFacts, Settings, Topology};
use atoll_dns::{Config, Encrypted, Files, Resources, Server};
use atoll_reach::{Accept, Allow, BoxStream, Dialer, Keepalive, Listen as _, RelayTable, Route, Routes, System};
use atoll_reach::{accept_relay, serve_relay};
use atoll_wire::follow::{Line, Report, Snapshot};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than any answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What a server is given beside its sockets; by default a line to nobody and no files.
pub(crate) struct Given {
    pub(crate) line: Line,
    pub(crate) files: Files,
}

impl Default for Given {
    fn default() -> Self {
        Self { line: Line::dead(), files: Files::default() }
    }
}

/// A running server and what it was given.
pub(crate) struct Stage {
    pub(crate) addr: SocketAddr,
    pub(crate) server: Server,
    pub(crate) topology: watch::Sender<Snapshot>,
    pub(crate) report: watch::Receiver<Report>,
    pub(crate) routes: Routes,
    pub(crate) relays: RelayTable,
    pub(crate) metrics: prometheus::Registry,
    /// The encrypted transports, where there are any.
    ends: Option<ways::Ends>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Stage {
    /// Starts a server with `topology`, whose members are all reached directly.
    pub(crate) async fn new(config: Config, topology: Topology) -> Self {
        Self::start(config, topology, (Encrypted::default(), None), Given::default()).await
    }

    /// The same, on every transport.
    pub(crate) async fn everywhere(config: Config, topology: Topology) -> Self {
        Self::given(config, topology, Given::default()).await
    }

    /// Where the encrypted transports are.
    pub(crate) fn ends(&self) -> &ways::Ends {
        self.ends.as_ref().expect("a stage that was started everywhere")
    }

    /// The same, with a line to a hub and files.
    pub(crate) async fn given(config: Config, topology: Topology, given: Given) -> Self {
        let (encrypted, ends) = ways::encrypted().await;
        Self::start(config, topology, (encrypted, Some(ends)), given).await
    }

    async fn start(
        config: Config,
        topology: Topology,
        (encrypted, ends): (Encrypted, Option<ways::Ends>),
        Given { line, files }: Given,
    ) -> Self {
        let (udp, tcp) = sockets().await;
        let addr = tcp.local_addr();
        let routes = Routes::default();
        routes.set(topology.clusters.keys().map(|c| (c.as_str().to_owned(), Route::Direct)).collect());
        let relays = RelayTable::default();
        let (sender, followed) = watch::channel(heard(topology));
        let (report, reported) = watch::channel(Report::default());
        let (started, start) = oneshot::channel();
        let metrics = prometheus::Registry::new();
        let system = System::default();
        let resources = Resources {
            topology: followed,
            dialer: Dialer::new(Arc::new(system.clone()), relays.clone(), routes.clone()),
            report,
            line,
            connect: Arc::new(system.clone()),
            listen: Arc::new(system),
            udp: vec![udp],
            tcp,
            encrypted,
            cookies: None,
            files,
            taps: Vec::new(),
            metrics: metrics.clone(),
            dir: None,
            started: Some(started),
        };
        let shutdown = CancellationToken::new();
        let run = atoll_dns::run(config, resources, shutdown.clone());
        let task = tokio::spawn(async move { run.await.expect("the server starts") });
        let server = start.await.expect("the server starts");
        Self { addr, server, topology: sender, report: reported, routes, relays, metrics, ends, shutdown, task }
    }

    /// Publishes another topology, and waits until it counts.
    pub(crate) async fn publish(&self, mut topology: Topology) {
        let generation = self.topology.borrow().topology.version.generation + 1;
        topology.version.generation = generation;
        self.topology.send_replace(heard(topology));
        until(async || {
            let ask = atoll_dns::Ask { name: "x.".into(), ..Default::default() };
            self.server.explain(ask).await["topology"]["generation"] == json!(generation)
        })
        .await;
    }

    /// The hub falls silent: nothing is heard any more, nothing was for a while.
    pub(crate) fn silence(&self) {
        self.topology.send_modify(|s| s.heard = None);
    }

    /// Asks by UDP as whoever has the address `from`.
    pub(crate) async fn ask_from(&self, from: &str, name: &str, kind: RecordType) -> Message {
        self.ask_packet(from, &query(name, kind)).await
    }

    pub(crate) async fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.ask_from("127.0.0.1", name, kind).await
    }

    pub(crate) async fn ask_packet(&self, from: &str, query: &Message) -> Message {
        let reply = self.raw(from, &query.to_vec().unwrap()).await.expect("no answer");
        let reply = Message::from_vec(&reply).expect("a DNS message");
        assert_eq!(reply.metadata.id, query.metadata.id);
        assert_eq!(reply.queries, query.queries);
        reply
    }

    /// The octets that come back for `packet`; `None` when nothing comes for a while.
    pub(crate) async fn raw(&self, from: &str, packet: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind((from, 0)).await.unwrap();
        socket.connect(self.addr).await.unwrap();
        socket.send(packet).await.unwrap();
        let mut octets = vec![0; 65_535];
        let len = timeout(PATIENCE, socket.recv(&mut octets)).await.ok()?.ok()?;
        octets.truncate(len);
        Some(octets)
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    pub(crate) async fn ask_tcp(&self, name: &str, kind: RecordType) -> Message {
        let mut stream = self.connect().await;
        write_framed(&mut stream, &query(name, kind)).await;
        read_framed(&mut stream).await
    }

    pub(crate) async fn explain(&self, name: &str, from: Option<&str>) -> Value {
        let ask = atoll_dns::Ask { name: name.into(), qtype: "A".into(), from: from.map(str::to_owned), ecs: None };
        self.server.explain(ask).await
    }

    /// Connects the agent of `cluster`.
    pub(crate) async fn agent(&self, cluster: &str) -> Agent {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let end = CancellationToken::new();
        let (relays, ours, theirs, name) = (self.relays.clone(), end.clone(), end.clone(), cluster.to_owned());
        tokio::spawn(async move {
            serve_relay(Box::new(far), Arc::new(All), Arc::new(System::default()), Keepalive::default(), theirs).await
        });
        tokio::spawn(async move { accept_relay(Box::new(near), name, &relays, ours).await });
        until(async || self.relays.is_live(cluster)).await;
        Agent(end)
    }

    /// Ends the server and waits for it.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        clock::still(self.task).await.expect("it ends well");
    }
}

fn heard(topology: Topology) -> Snapshot {
    Snapshot { topology: Arc::new(topology), heard: Some(Instant::now()) }
}

async fn sockets() -> (std::net::UdpSocket, Box<dyn Accept>) {
    for _ in 0..50 {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = System::default().tcp(udp.local_addr().unwrap()).await {
            return (udp, Box::new(Scarce { inner: tcp, failures: 2 }));
        }
    }
    panic!("no port that is free for UDP and TCP");
}

/// A listener that finds no descriptor left at first.
struct Scarce {
    inner: Box<dyn Accept>,
    failures: usize,
}

#[async_trait::async_trait]
impl Accept for Scarce {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(io::Error::from_raw_os_error(24)); // EMFILE
        }
        self.inner.accept().await
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }
}

/// Everything may be reached.
struct All;

impl Allow for All {
    fn allow(&self, host: &str, port: u16) -> Result<(String, u16), String> {
        Ok((host.to_owned(), port))
    }
}

/// An agent that has its relay connection open, until it is dropped.
pub(crate) struct Agent(CancellationToken);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(crate) async fn write_framed(stream: &mut TcpStream, message: &Message) {
    let octets = message.to_vec().unwrap();
    let mut framed = u16::try_from(octets.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(octets);
    stream.write_all(&framed).await.unwrap();
}

pub(crate) async fn read_framed(stream: &mut TcpStream) -> Message {
    let read = async {
        let len = stream.read_u16().await.unwrap();
        let mut octets = vec![0; usize::from(len)];
        stream.read_exact(&mut octets).await.unwrap();
        Message::from_vec(&octets).unwrap()
    };
    timeout(PATIENCE, read).await.expect("no answer by TCP")
}

pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// A query with EDNS, as resolvers send it.
pub(crate) fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    message
}

/// Code and data: `NOERROR 10.0.0.1 …`, in order of the text.
pub(crate) fn said(message: &Message) -> String {
    let mut data: Vec<String> =
        message.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
    data.sort();
    format!("{:?} {}", message.metadata.response_code, data.join("; ")).trim_end().to_owned()
}

/// The data of the answers alone, in order of the text.
pub(crate) fn data(message: &Message) -> String {
    let mut data: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    data.join(" ")
}

/// The owner of the SOA in the authority section.
pub(crate) fn soa(message: &Message) -> Option<String> {
    message.authorities.iter().find(|r| r.record_type() == RecordType::SOA).map(|r| r.name.to_string())
}

/// The codes of the extended errors.
pub(crate) fn edes(message: &Message) -> Vec<u16> {
    let options = message.edns.as_ref().map(|e| e.options().get_all(EdnsCode::Unknown(15))).unwrap_or_default();
    let code = |o: &&EdnsOption| match o {
        EdnsOption::Unknown(15, octets) => u16::from_be_bytes([octets[0], octets[1]]),
        _ => 0,
    };
    options.iter().map(code).collect()
}

pub(crate) fn is_nxdomain(message: &Message, zone: &str) -> bool {
    message.metadata.response_code == ResponseCode::NXDomain && soa(message).as_deref() == Some(zone)
}

/// Waits for a condition.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.expect("the condition never held");
}

/// A federation without members.
pub(crate) fn federation() -> Topology {
    let settings = Settings { apex: "atoll.internal".into(), default_set: "prod".into(), ..Settings::default() };
    Topology { settings, ..Topology::default() }
}

/// A member of `topology`: its range is 127.`net`.0.0/16, its DNS at `dns`.
pub(crate) fn add(topology: &mut Topology, name: &str, environment: &str, region: &str, net: u8, dns: Value) {
    let facts: ClusterFacts = serde_json::from_value(json!({
        "name": name, "ready": true, "dnsReady": true, "dns": dns,
        "spec": {"environment": environment, "region": region},
        "cidrs": {"pods": [format!("127.{net}.0.0/16")]},
    }))
    .unwrap();
    topology.clusters.insert(name.parse().unwrap(), Arc::new(facts));
}

/// `shop/web` of a set, with one endpoint in each of its clusters: 127.`net`.0.80.
pub(crate) fn offer(topology: &mut Topology, set: &str, clusters: &[(&str, u8)]) {
    let web = ServiceName::new("shop", "web");
    let names: Vec<&str> = clusters.iter().map(|c| c.0).collect();
    let service = json!({"clusters": names, "ports": [{"name": "http", "protocol": "TCP", "port": 80}]});
    topology
        .services
        .entry(set.to_owned())
        .or_default()
        .insert(web.clone(), Arc::new(serde_json::from_value(service).unwrap()));
    for (cluster, net) in clusters {
        let endpoints = json!({
            "endpoints": [{"address": format!("127.{net}.0.80"), "ready": true}],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        });
        topology
            .endpoints
            .entry(cluster.parse().unwrap())
            .or_default()
            .insert(web.clone(), Arc::new(serde_json::from_value(endpoints).unwrap()));
    }
}

/// Changes what the topology says of a member.
pub(crate) fn change(topology: &mut Topology, cluster: &str, how: impl FnOnce(&mut ClusterFacts)) {
    let mut facts = ClusterFacts::clone(&topology.clusters[cluster]);
    how(&mut facts);
    topology.clusters.insert(cluster.parse().unwrap(), Arc::new(facts));
}

/// Routes for every member of `topology`.
pub(crate) fn routes(topology: &Topology, route: Route) -> HashMap<String, Route> {
    topology.clusters.keys().map(|c| (c.as_str().to_owned(), route)).collect()
}

/// The texts of the extended errors.
pub(crate) fn ede_text(message: &Message) -> String {
    let options = message.edns.as_ref().map(|e| e.options().get_all(EdnsCode::Unknown(15))).unwrap_or_default();
    let text = |o: &&EdnsOption| match o {
        EdnsOption::Unknown(15, octets) => String::from_utf8_lossy(octets.get(2..).unwrap_or_default()).into_owned(),
        _ => String::new(),
    };
    options.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// The sum of a metric over everything of which one label is `label`.
pub(crate) fn metric(stage: &Stage, name: &str, label: &str) -> f64 {
    let families = stage.metrics.gather();
    let found = families.iter().filter(|f| f.name() == name).flat_map(|f| f.get_metric());
    let labelled = found.filter(|m| m.get_label().iter().any(|l| l.value() == label));
    labelled.map(|m| m.get_counter().get_value() + m.get_gauge().get_value()).sum()
}
