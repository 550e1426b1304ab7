//! The proxies: Atoll in this process, nginx and HAProxy as Debian has them in processes of their own, each with a port for every lane.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use atoll_api::kinds::{Channel, gateway_api_crds};
use atoll_api::topology::Topology;
use atoll_apiserver::{ApiServer, Storage};
use atoll_gateway::{Config, Limits, Resources};
use atoll_reach::{Connect, Dialer, Listen as _, RelayTable, Routes, System};
use atoll_wire::follow::{Report, Snapshot};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::lane::{Lane, Way};
use super::origin::Origin;
use crate::objects::{apply, secret, service};
use crate::{Result, say};

/// Their names.
pub(super) const PEERS: [&str; 3] = ["atoll", "nginx", "haproxy"];
/// Short, so that a request that never comes whole is given up.
const SHORT: Duration = Duration::from_millis(500);

/// All of them.
pub(super) struct Peers {
    pub(super) lanes: Vec<Lane>,
    children: Vec<Child>,
    gateway: JoinHandle<()>,
    stop: CancellationToken,
}

impl Peers {
    /// Starts them, and waits until every port answers.
    pub(super) async fn start(lanes: usize, folder: &Path) -> Result<Self> {
        // Held until all are chosen, so that none is chosen twice.
        let (mut ways, mut held) = (Vec::new(), Vec::new());
        for _ in 0..lanes {
            let mut of_lane = Vec::new();
            for name in PEERS {
                let (port, origin) = (TcpListener::bind((own(), 0)).await?, Origin::start("127.0.0.1:0").await);
                let proxy = port.local_addr()?;
                held.push(port);
                of_lane.push(Way { proxy, origin, half_closes: name != "nginx" });
            }
            ways.push(of_lane);
        }
        drop(held);
        let of =
            |peer: usize| ways.iter().map(|lane| (lane[peer].proxy, lane[peer].origin.address)).collect::<Vec<_>>();
        let children = vec![nginx(&of(1), folder)?, haproxy(&of(2), folder)?];
        let stop = CancellationToken::new();
        let (gateway, _) = atoll(&of(0), None, stop.clone()).await?;
        for way in ways.iter().flatten() {
            way.answers().await?;
        }
        let lanes = ways.into_iter().filter_map(|ways| ways.try_into().ok().map(Lane)).collect();
        Ok(Self { lanes, children, gateway, stop })
    }

    /// Ends them.
    pub(super) async fn stop(mut self) {
        for child in &mut self.children {
            let _ = child.kill().await;
        }
        self.stop.cancel();
        let _ = self.gateway.await;
    }
}

/// Atoll alone before one endpoint, until it is killed.
pub(super) async fn alone(folder: &Path) -> Result<()> {
    let proxy = TcpListener::bind((own(), 0)).await?.local_addr()?;
    let way = Way { proxy, origin: Origin::start("127.0.0.1:0").await, half_closes: true };
    let (gateway, https) = atoll(&[(way.proxy, way.origin.address)], Some(folder), CancellationToken::new()).await?;
    way.answers().await?;
    say("https", https)?;
    say("ready", way.proxy)?;
    Ok(gateway.await?)
}

impl Way {
    async fn answers(&self) -> Result<()> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for _ in 0..600 {
            if let Ok(mut stream) = TcpStream::connect(self.proxy).await {
                stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
                let mut got = Vec::new();
                let _ = stream.read_to_end(&mut got).await;
                if got.starts_with(b"HTTP/1.1 200") {
                    self.origin.got().await;
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("{} does not answer", self.proxy).into())
    }
}

/// A loopback address of this process, so that nobody else's connections have its ports.
fn own() -> IpAddr {
    let n = std::process::id();
    Ipv4Addr::new(127, 80, u8::try_from(n / 250 % 250).unwrap_or(1), u8::try_from(n % 250).unwrap_or(0) + 1).into()
}

fn start(program: &str, words: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().map_err(|error| format!("{program}: {error} (Debian's packages nginx-light and haproxy)").into())
}

fn nginx(ports: &[(SocketAddr, SocketAddr)], folder: &Path) -> Result<Child> {
    let at = folder.display();
    let mut conf = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/nginx.error crit;\nevents {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};\n"
    );
    for (n, (proxy, origin)) in ports.iter().enumerate() {
        let _ = writeln!(
            conf,
            "upstream u{n} {{ server {origin}; keepalive 8; }} server {{ listen {proxy}; location / {{ proxy_pass http://u{n}; \
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_next_upstream off; }} }}"
        );
    }
    conf.push('}');
    let file = folder.join("nginx.conf");
    std::fs::write(&file, conf)?;
    start("/usr/sbin/nginx", &["-c", &file.display().to_string()])
}

fn haproxy(ports: &[(SocketAddr, SocketAddr)], folder: &Path) -> Result<Child> {
    let mut conf = "global\n  maxconn 2000\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 1s\n  timeout server 2s\n  \
                    timeout http-request 1s\n  http-reuse always\n  retries 0\n"
        .to_owned();
    for (n, (proxy, origin)) in ports.iter().enumerate() {
        let _ = writeln!(
            conf,
            "frontend f{n}\n  bind {proxy}\n  default_backend b{n}\nbackend b{n}\n  server one {origin}"
        );
    }
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, conf)?;
    start("/usr/sbin/haproxy", &["-db", "-f", &file.display().to_string()])
}

/// Returns where TLS is served, too.
async fn atoll(
    ports: &[(SocketAddr, SocketAddr)],
    certificate: Option<&Path>,
    stop: CancellationToken,
) -> Result<(JoinHandle<()>, SocketAddr)> {
    let namespaces = ["default", "atoll-system", "infra", "shop"].map(Into::into).into();
    let api =
        ApiServer::open(atoll_apiserver::Config { namespaces, ..atoll_apiserver::Config::default() }, Storage::Memory)
            .await?;
    let crds: Api<CustomResourceDefinition> = Api::all(api.client());
    for crd in gateway_api_crds(Channel::Experimental) {
        crds.create(&PostParams::default(), &crd).await?;
    }
    let all = json!({"namespaces": {"from": "All"}});
    let mut listeners: Vec<Value> = ports
        .iter()
        .enumerate()
        .map(|(n, (proxy, _))| json!({"name": format!("l{n}"), "port": proxy.port(), "protocol": "HTTP", "allowedRoutes": all}))
        .collect();
    if let Some(folder) = certificate {
        apply(api.client(), secret(folder)?).await?;
        listeners.push(json!({"name": "https", "port": 443, "protocol": "HTTPS", "allowedRoutes": all,
            "tls": {"certificateRefs": [{"name": "certificate"}]}}));
    }
    let mut objects = vec![json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "main", "namespace": "infra"}, "spec": {"gatewayClassName": "atoll", "listeners": listeners}})];
    for (n, (_, origin)) in ports.iter().enumerate() {
        objects.extend(service(&format!("web{n}"), *origin, None));
        objects.push(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": format!("r{n}"), "namespace": "shop"},
            "spec": {"parentRefs": [{"name": "main", "namespace": "infra", "sectionName": format!("l{n}")},
                {"name": "main", "namespace": "infra", "sectionName": "https"}],
                "rules": [{"backendRefs": [{"name": format!("web{n}"), "port": 80}]}]}}));
    }
    for object in objects {
        apply(api.client(), object).await?;
    }
    let (system, local) = (System::default(), SocketAddr::new(own(), 0));
    let https = system.tcp(local).await?;
    let tls_at = https.local_addr();
    let mut topology = Topology::default();
    topology.settings.default_set = "prod".to_owned();
    let heard = Some(tokio::time::Instant::now());
    let (followed, topology) = watch::channel(Snapshot { topology: Arc::new(topology), heard });
    let (report, reported) = watch::channel(Report::default());
    let connect: Arc<dyn Connect> = Arc::new(system.clone());
    let resources = Resources {
        topology,
        dialer: Dialer::new(Arc::clone(&connect), RelayTable::default(), Routes::default()),
        report,
        connect,
        listen: Arc::new(system.clone()),
        http: system.tcp(local).await?,
        https,
        client: api.client(),
        roots: Arc::new(rustls::RootCertStore::empty()),
        metrics: prometheus::Registry::new(),
        last_good: None,
        access: None,
        started: None,
    };
    let limits = Limits { header_timeout: SHORT, body_timeout: SHORT, drain: SHORT, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    let running = async move {
        let _ends = (followed, reported, api);
        let _ = atoll_gateway::run(config, resources, stop).await;
    };
    Ok((tokio::spawn(running), tls_at))
}
