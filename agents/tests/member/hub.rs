//! A hub that does as it is told: a real port with real mutual TLS, behind which the test decides.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use atoll_api::facts::Facts;
use atoll_api::token::JoinToken;
use atoll_reach::{
    BoxStream, ClientAuth, Identity, Keepalive, Listen as _, Peer, RELAY_ALPN, RelayTable, Revocations, Role, Serial,
    System, TlsIdentity, accept_relay, ca_pin,
};
use atoll_wire::delta::{Receiver, Sender};
use atoll_wire::v1::enrolment_server::{Enrolment, EnrolmentServer};
use atoll_wire::v1::from_agent::Message as FromAgentMessage;
use atoll_wire::v1::link_server::{Link, LinkServer};
use atoll_wire::v1::to_agent::Message as ToAgentMessage;
use atoll_wire::v1::{Acknowledged, EnrolRequest, EnrolResponse, FromAgent, Heartbeat, RenewRequest, ToAgent, Welcome};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

const HUB: &str = "hub-1";

/// What outlives the hub's restarts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    pin: [u8; 32],
    used: Mutex<HashSet<String>>,
    /// Certificates are issued as if they had been valid for this long already.
    pub(crate) age: Mutex<Duration>,
    /// Renewals are never answered.
    pub(crate) silent: AtomicBool,
    /// How many renewals were asked for.
    pub(crate) asked: watch::Sender<u64>,
    /// The serial of the last certificate that replaced another.
    pub(crate) renewed: watch::Sender<Option<Serial>>,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let (ca_pem, pin) = (cert.pem(), ca_pin(cert.der()));
        Arc::new(Self {
            issuer: Issuer::new(params, key),
            ca_pem,
            pin,
            used: Mutex::default(),
            age: Mutex::new(Duration::from_secs(60)),
            silent: AtomicBool::new(false),
            asked: watch::Sender::new(0),
            renewed: watch::Sender::new(None),
        })
    }

    pub(crate) fn token(&self, cluster: &str) -> String {
        let secret = format!("{:x}", rand::random::<u128>() | (1 << 127));
        JoinToken { cluster: cluster.parse().unwrap(), ca_pin: self.pin, secret }.to_string()
    }

    fn sign(&self, role: &Role, csr: &str) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let age = *self.age.lock().unwrap();
        let now = SystemTime::from(jiff::Timestamp::now());
        csr.params.subject_alt_names = vec![SanType::URI(role.uri(HUB).try_into().unwrap())];
        csr.params.not_before = (now - age).into();
        csr.params.not_after = (now + Duration::from_secs(600)).into();
        format!("{}{}", csr.signed_by(&self.issuer).unwrap().pem(), self.ca_pem)
    }

    fn identity(&self, role: &Role) -> Identity {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        Identity::from_pem(&self.sign(role, &csr), &key.serialize_pem(), &self.ca_pem).unwrap()
    }
}

/// What the hub heard, and what it wants.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) relays: RelayTable,
    /// What the test wants of the member.
    pub(crate) desired: watch::Sender<Facts>,
    pub(crate) facts: watch::Receiver<Facts>,
    pub(crate) status: watch::Receiver<Facts>,
    pub(crate) heartbeat: watch::Receiver<Option<Heartbeat>>,
    /// How many connections were accepted.
    pub(crate) knocks: watch::Receiver<u64>,
    /// The peer of the last link, and how many there were.
    pub(crate) link: watch::Receiver<(u64, Option<Peer>)>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Hub {
    pub(crate) async fn start(authority: &Arc<Authority>, epoch: u64, desired: Facts) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), authority, epoch, desired).await
    }

    pub(crate) async fn start_at(at: SocketAddr, authority: &Arc<Authority>, epoch: u64, desired: Facts) -> Self {
        let mut listener = System::default().tcp(at).await.unwrap();
        let address = listener.local_addr();
        let tls = TlsIdentity::new(authority.identity(&Role::Hub), Revocations::none()).unwrap();
        let (desired, wanted) = watch::channel(desired);
        let (facts_tx, facts) = watch::channel(Facts::default());
        let (status_tx, status) = watch::channel(Facts::default());
        let (heartbeat_tx, heartbeat) = watch::channel(None);
        let (link_tx, link) = watch::channel((0, None));
        let (knocks_tx, knocks) = watch::channel(0);
        let face = Face {
            authority: Arc::clone(authority),
            epoch,
            wanted,
            facts: facts_tx,
            status: status_tx,
            heartbeat: heartbeat_tx,
            link: link_tx,
        };
        let (relays, stop) = (RelayTable::new(Keepalive::default()), CancellationToken::new());
        let (streams, incoming) = mpsc::channel::<io::Result<HubIo>>(16);
        let ended = tokio::spawn({
            let (stop, relays) = (stop.clone(), relays.clone());
            async move {
                let grpc = Server::builder()
                    .add_service(EnrolmentServer::from_arc(Arc::new(face.clone())))
                    .add_service(LinkServer::new(face))
                    .serve_with_incoming(ReceiverStream::new(incoming));
                let config = tls.server(ClientAuth::Optional, &[b"h2", RELAY_ALPN]);
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        knocks_tx.send_modify(|knocks| *knocks += 1);
                        let (tls, config, streams) = (tls.clone(), Arc::clone(&config), streams.clone());
                        let (relays, stop) = (relays.clone(), stop.clone());
                        tokio::spawn(async move {
                            let Ok(secured) = tls.accept(config, stream).await else { return };
                            match (secured.alpn.as_deref(), secured.peer) {
                                (Some(RELAY_ALPN), Some(Peer { role: Role::Cluster(name), .. })) => {
                                    let _ = accept_relay(secured.stream, name, &relays, stop).await;
                                }
                                (_, peer) => {
                                    let _ = streams.send(Ok(HubIo { stream: secured.stream, peer, stop })).await;
                                }
                            }
                        });
                    }
                };
                tokio::select! {
                    _ = grpc => {}
                    () = accept => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        Self { address, relays, desired, facts, status, heartbeat, knocks, link, stop, ended }
    }

    /// Dies: the port is closed and all connections break.
    pub(crate) async fn kill(self) -> SocketAddr {
        self.stop.cancel();
        self.ended.await.unwrap();
        self.address
    }
}

/// A connection that breaks when the hub dies.
struct HubIo {
    stream: BoxStream,
    peer: Option<Peer>,
    stop: CancellationToken,
}

impl Connected for HubIo {
    type ConnectInfo = Option<Peer>;

    fn connect_info(&self) -> Option<Peer> {
        self.peer.clone()
    }
}

impl AsyncRead for HubIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.stop.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        // The test's own double: woken by the agent's next heartbeat at the latest.
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for HubIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.stop.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct Face {
    authority: Arc<Authority>,
    epoch: u64,
    wanted: watch::Receiver<Facts>,
    facts: watch::Sender<Facts>,
    status: watch::Sender<Facts>,
    heartbeat: watch::Sender<Option<Heartbeat>>,
    link: watch::Sender<(u64, Option<Peer>)>,
}

fn peer<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Option<Peer>>().cloned().flatten()
}

#[tonic::async_trait]
impl Enrolment for Face {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let request = request.into_inner();
        let token: JoinToken = request.token.parse().map_err(|_| Status::invalid_argument("malformed token"))?;
        if !self.authority.used.lock().unwrap().insert(token.secret.clone()) {
            return Err(Status::permission_denied("the token was used already"));
        }
        let role = Role::Cluster(token.cluster.to_string());
        Ok(Response::new(EnrolResponse {
            name: token.cluster.to_string(),
            hub_id: HUB.to_owned(),
            certificate_pem: self.authority.sign(&role, &request.csr_pem),
            ca_pem: self.authority.ca_pem.clone(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolResponse>, Status> {
        let Some(peer) = peer(&request) else { return Err(Status::unauthenticated("no certificate")) };
        self.authority.asked.send_modify(|asked| *asked += 1);
        if self.authority.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        *self.authority.age.lock().unwrap() = Duration::from_secs(60);
        let certificate_pem = self.authority.sign(&peer.role, &request.into_inner().csr_pem);
        let leaf = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
        self.authority.renewed.send_replace(Some(Peer::from_der(&leaf).unwrap().serial));
        Ok(Response::new(EnrolResponse {
            name: String::new(),
            hub_id: HUB.to_owned(),
            certificate_pem,
            ca_pem: self.authority.ca_pem.clone(),
        }))
    }
}

#[tonic::async_trait]
impl Link for Face {
    type OpenStream = ReceiverStream<Result<ToAgent, Status>>;

    async fn open(&self, request: Request<Streaming<FromAgent>>) -> Result<Response<Self::OpenStream>, Status> {
        let Some(peer) = peer(&request) else { return Err(Status::unauthenticated("no certificate")) };
        self.link.send_modify(|link| *link = (link.0 + 1, Some(peer)));
        let (say, queue) = mpsc::channel(64);
        let mut hear = request.into_inner();
        let face = self.clone();
        tokio::spawn(async move { face.converse(&mut hear, say).await });
        Ok(Response::new(ReceiverStream::new(queue)))
    }
}

impl Face {
    async fn converse(self, hear: &mut Streaming<FromAgent>, say: mpsc::Sender<Result<ToAgent, Status>>) -> Option<()> {
        let tell = |message| {
            let say = say.clone();
            async move { say.send(Ok(ToAgent { message: Some(message) })).await.ok() }
        };
        let mut wanted = self.wanted.clone();
        let (mut desired, mut facts, mut status) = (Sender::new(self.epoch), Receiver::new(0), Receiver::new(0));
        wanted.mark_changed();
        loop {
            tokio::select! {
                heard = hear.message() => match heard.ok()??.message? {
                    FromAgentMessage::Hello(_) => {
                        let welcome = Welcome { hub_id: HUB.to_owned(), epoch: self.epoch, heartbeat_ms: 300 };
                        tell(ToAgentMessage::Welcome(welcome)).await?;
                    }
                    FromAgentMessage::Heartbeat(heartbeat) => {
                        self.heartbeat.send_replace(Some(heartbeat));
                        let digest = desired.digest().to_vec().into();
                        tell(ToAgentMessage::Acknowledged(Acknowledged { epoch: self.epoch, digest })).await?;
                    }
                    FromAgentMessage::Facts(delta) => {
                        facts.take(delta).unwrap();
                        self.facts.send_replace(facts.facts().clone());
                    }
                    FromAgentMessage::Status(delta) => {
                        status.take(delta).unwrap();
                        self.status.send_replace(status.facts().clone());
                    }
                    FromAgentMessage::Resync(_) => {
                        desired.forget();
                        wanted.mark_changed();
                    }
                },
                changed = wanted.changed() => {
                    changed.ok()?;
                    let now = wanted.borrow_and_update().clone();
                    for delta in desired.update(&now) {
                        tell(ToAgentMessage::Desired(delta)).await?;
                    }
                }
            }
        }
    }
}
