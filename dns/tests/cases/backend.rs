//! Servers that health checks look at: TCP, HTTP, HTTPS and gRPC, at one port of several addresses, well or ill at a word.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What is spoken.
#[derive(Clone)]
pub(crate) enum Protocol {
    Tcp,
    Http,
    Https(TlsAcceptor),
    Grpc,
}

impl Protocol {
    pub(crate) fn of(word: &str) -> Option<Self> {
        Some(match word {
            "tcp" => Self::Tcp,
            "http" => Self::Http,
            "https" => Self::Https(acceptor()),
            "grpc" => Self::Grpc,
            _ => return None,
        })
    }
}

/// With a certificate that nobody has reason to believe: probes ask whether somebody serves, not who.
fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["nobody.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

struct Place {
    state: Arc<Mutex<State>>,
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct State {
    ill: bool,
    /// Connections that came, connections that are over, probes that were answered.
    begun: usize,
    ended: usize,
    probes: usize,
}

/// The same server at several addresses.
pub(crate) struct Backend {
    pub(crate) port: u16,
    protocol: Protocol,
    places: BTreeMap<IpAddr, Place>,
}

impl Backend {
    /// At a port that is free on all of `ips`.
    pub(crate) async fn new(protocol: Protocol, ips: &[IpAddr]) -> Self {
        'port: for _ in 0..50 {
            let first = TcpListener::bind((ips[0], 0)).await.unwrap();
            let port = first.local_addr().unwrap().port();
            let mut backend = Self { port, protocol: protocol.clone(), places: BTreeMap::new() };
            let mut listeners = vec![(ips[0], first)];
            for ip in &ips[1..] {
                let Ok(listener) = TcpListener::bind((*ip, port)).await else { continue 'port };
                listeners.push((*ip, listener));
            }
            for (ip, listener) in listeners {
                let state = Arc::default();
                let task = Some(backend.open(listener, &state));
                backend.places.insert(ip, Place { state, task });
            }
            return backend;
        }
        panic!("no port that is free on {ips:?}");
    }

    fn open(&self, listener: TcpListener, state: &Arc<Mutex<State>>) -> AbortHandle {
        tokio::spawn(serve(listener, self.protocol.clone(), Arc::clone(state))).abort_handle()
    }

    /// `well`, `ill` (it says so), `gone` (nobody listens).
    pub(crate) async fn turn(&mut self, ip: IpAddr, word: &str) -> Result<(), String> {
        let port = self.port;
        let place = self.places.get_mut(&ip).ok_or_else(|| format!("nothing is at {ip}"))?;
        place.state.lock().unwrap().ill = word == "ill";
        match word {
            "gone" => place.task.take().into_iter().for_each(|task| task.abort()),
            "well" | "ill" if place.task.is_none() => {
                let listener = TcpListener::bind(SocketAddr::new(ip, port)).await.map_err(|e| e.to_string())?;
                let state = Arc::clone(&place.state);
                let task = self.open(listener, &state);
                self.places.entry(ip).and_modify(|place| place.task = Some(task));
            }
            "well" | "ill" => {}
            _ => return Err(format!("nothing can be `{word}`")),
        }
        Ok(())
    }

    /// Whether somebody is being answered.
    pub(crate) fn busy(&self) -> bool {
        let busy = |place: &Place| {
            let state = place.state.lock().unwrap();
            state.begun > state.ended
        };
        self.places.values().any(busy)
    }

    /// How many probes it answered at `ip`.
    pub(crate) fn probes(&self, ip: IpAddr) -> usize {
        self.places.get(&ip).map_or(0, |place| place.state.lock().unwrap().probes)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.places.values().flat_map(|place| &place.task).for_each(AbortHandle::abort);
    }
}

async fn serve(listener: TcpListener, protocol: Protocol, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.lock().unwrap().begun += 1;
        let (protocol, state) = (protocol.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            answer(stream, protocol, Arc::clone(&state)).await;
            state.lock().unwrap().ended += 1;
        });
    }
}

async fn answer(stream: TcpStream, protocol: Protocol, state: Arc<Mutex<State>>) {
    match protocol {
        Protocol::Tcp => state.lock().unwrap().probes += 1,
        Protocol::Http => by_http(stream, state).await,
        Protocol::Https(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                by_http(stream, state).await;
            }
        }
        Protocol::Grpc => by_grpc(stream, state).await,
    }
}

/// 200, or 503.
async fn by_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<Mutex<State>>) {
    let service = service_fn(move |_: http::Request<Incoming>| {
        let mut state = state.lock().unwrap();
        state.probes += 1;
        let status = if state.ill { 503 } else { 200 };
        let response = http::Response::builder().status(status).body(Full::new(Bytes::new())).unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// gRPC Health Checking Protocol: SERVING (1) or NOT_SERVING (2).
async fn by_grpc(stream: TcpStream, state: Arc<Mutex<State>>) {
    let service = service_fn(move |request: http::Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let known = request.uri().path() == "/grpc.health.v1.Health/Check";
            let _ = request.into_body().collect().await;
            let mut state = state.lock().unwrap();
            state.probes += 1;
            let status = if known && !state.ill { 1 } else { 2 };
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let frames = [
                Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))),
                Ok(Frame::trailers(trailers)),
            ];
            Ok::<_, Infallible>(http::Response::new(StreamBody::new(futures::stream::iter(frames))))
        }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
}
