//! A gateway gives its place to the next process as people let it: the real program, ten times under load, and where the next one fails.

#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "up/world.rs"]
mod world;

use std::net::{SocketAddr, TcpListener as Std};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use world::{LONG, Place, Up, client, until};

/// A hub's API where nobody listens.
const NOWHERE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n\
    users: [{name: x, user: {}}]\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n";
/// Connections that ask one request after the other.
const CONNECTIONS: usize = 16;

/// A hub, a backend, and where gateways of one configuration run.
struct Stage {
    place: Place,
    _up: Up,
    config: PathBuf,
    kubeconfig: String,
    http: SocketAddr,
    admin: SocketAddr,
}

fn free() -> Result<SocketAddr> {
    Ok(Std::bind("127.0.0.1:0")?.local_addr()?)
}

impl Stage {
    async fn new() -> Result<Self> {
        let place = Place::new()?;
        let (hub, http, https, relay, admin) = (free()?, free()?, free()?, free()?, free()?);
        let any = "'127.0.0.1:0'";
        let listen = format!(
            "listen: {{api: {any}, hub: '{hub}', dns: {any}, http: {any}, https: {any}, console: {any}, dnsRelay: {any}, \
             gatewayRelay: {any}, admin: {any}}}\n"
        );
        let hubs = place.file("up.yaml", &listen)?;
        let up = place.up(&["--members", "0", "--config", &hubs.display().to_string()]).await?;
        let client = client(&PathBuf::from(up.text("kubeconfig")), "atoll").await?;
        let backend = backend().await?;
        for object in objects(backend) {
            apply(&client, object).await?;
        }
        let config = format!(
            "kubeconfig: '{}'\nhub: '{hub}'\ndataDir: '{}'\nsite: edge\nlisten: {{http: '{http}', https: '{https}', gatewayRelay: '{relay}', \
             admin: '{admin}'}}\ngateway: {{limits: {{drainSeconds: 10}}}}\n",
            up.text("kubeconfig"),
            place.at("edge").display(),
        );
        let config = place.file("edge.yaml", &config)?;
        let kubeconfig = up.text("kubeconfig").to_owned();
        Ok(Self { place, _up: up, config, kubeconfig, http, admin })
    }

    fn gateway(&self, words: &[&str]) -> Result<Child> {
        self.gateway_of(&self.config, words)
    }

    fn gateway_of(&self, config: &Path, words: &[&str]) -> Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.place.at("edge.log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(["gateway", "--config"]).arg(config).args(words).env("ATOLL_HOME", self.place.home());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        Ok(command.spawn()?)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.at("edge.log")).unwrap_or_default()
    }

    async fn ready(&self) -> Result<u16> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text.get(9..12).context("no status")?.parse()?)
    }

    async fn until_ready(&self, status: u16) {
        until("the gateway says that it is ready, or not", async || {
            let said = self.ready().await?;
            ensure!(said == status, "{said}\n{}", self.log());
            Ok(())
        })
        .await;
    }
}

/// A server that answers everything.
async fn backend() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut got, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = stream.read(&mut part).await {
                    got.extend_from_slice(&part[..n]);
                    while let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                        got.drain(..end + 4);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(at)
}

fn objects(backend: SocketAddr) -> [Value; 4] {
    let listeners =
        json!([{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]);
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"}, "spec": {"ports": [{"name": "http", "port": 80}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "echo-1", "labels": {"kubernetes.io/service-name": "echo"}},
            "endpoints": [{"addresses": [backend.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": backend.port(), "protocol": "TCP"}]}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
            "spec": {"gatewayClassName": "atoll", "listeners": listeners}}),
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "echo"},
            "spec": {"parentRefs": [{"name": "edge"}], "hostnames": ["echo.test"], "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]}}),
    ]
}

async fn apply(client: &kube::Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().context("a kind")?;
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let name = object.metadata.name.clone().context("a name")?;
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// One request; whether the connection goes on.
async fn ask(stream: &mut TcpStream) -> Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: echo.test\r\n\r\n").await?;
    let (mut got, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut part).await?;
        ensure!(n > 0, "the connection ended without an answer after {got:?}");
        got.extend_from_slice(&part[..n]);
        let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200"), "{head}");
        let length: usize =
            head.lines().find_map(|l| l.strip_prefix("content-length: ")).context("no length")?.trim().parse()?;
        if got.len() >= end + 4 + length {
            return Ok(!head.contains("connection: close"));
        }
    }
}

/// Clients that ask all the time.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(at: SocketAddr) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let one = |_| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                let mut open: Option<TcpStream> = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = match open.take() {
                        Some(stream) => stream,
                        None => TcpStream::connect(at).await?,
                    };
                    let goes_on = timeout(LONG, ask(&mut stream)).await.context("no answer")??;
                    asked.fetch_add(1, Ordering::Relaxed);
                    open = Some(stream).filter(|_| goes_on);
                }
                Ok(())
            })
        };
        let tasks = (0..CONNECTIONS).map(one).collect();
        Self { stop, asked, tasks }
    }

    /// Waits for so many more answers.
    async fn more(&self, count: usize) -> Result<()> {
        let (until, began) = (self.asked.load(Ordering::Relaxed) + count, Instant::now());
        while self.asked.load(Ordering::Relaxed) < until {
            if began.elapsed() > LONG || self.tasks.iter().any(JoinHandle::is_finished) {
                bail!("clients are not served");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends it; whoever was not served says why.
    async fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(self.asked.load(Ordering::Relaxed))
    }
}

async fn ended(child: &mut Child) -> Result<Option<i32>> {
    Ok(timeout(LONG, child.wait()).await.context("it does not end")??.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_processes_after_one_another_serve_and_no_request_fails_and_a_broken_one_changes_nothing() {
    let stage = Stage::new().await.unwrap();
    let mut running = stage.gateway(&["--take-over"]).unwrap();
    until("the gateway serves", async || {
        ensure!(ask(&mut TcpStream::connect(stage.http).await?).await?, "it ends the connection\n{}", stage.log());
        Ok(())
    })
    .await;
    let load = Load::start(stage.http);
    for round in 0..10 {
        load.more(50).await.unwrap();
        let mut next = stage.gateway(&["--take-over"]).unwrap();
        assert_eq!(ended(&mut running).await.unwrap(), Some(0), "round {round}\n{}", stage.log());
        assert!(next.try_wait().unwrap().is_none(), "round {round}\n{}", stage.log());
        load.more(50).await.unwrap();
        running = next;
    }

    // One whose configuration can't be: its admin port is somebody else's.
    let theirs = Std::bind("127.0.0.1:0").unwrap();
    let text = std::fs::read_to_string(&stage.config).unwrap();
    let broken = text.replace(&stage.admin.to_string(), &theirs.local_addr().unwrap().to_string());
    let broken = stage.place.file("broken.yaml", &broken).unwrap().display().to_string();
    let failed = stage.place.ended(&["gateway", "--config", &broken, "--take-over"]).await.unwrap();
    failed.says("a port that is taken", 1, &["another program listens there"]);
    // One that never has a table, for its hub is nowhere, killed once it has the sockets.
    let lost =
        text.replace(&stage.place.at("edge").display().to_string(), &stage.place.at("lost").display().to_string());
    let lost = lost.replace(&stage.kubeconfig, &stage.place.file("nowhere", NOWHERE).unwrap().display().to_string());
    let socket = stage.place.at("edge").join("gateway/handover.sock").display().to_string();
    let lost = lost.replace("gateway: {", &format!("gateway: {{handover: '{socket}', "));
    let lost = stage.place.file("lost.yaml", &lost).unwrap();
    let given = || stage.log().matches("the next gateway gets the sockets").count();
    let before = given();
    let mut killed = stage.gateway_of(&lost, &["--take-over"]).unwrap();
    until("it gets the sockets", async || {
        ensure!(given() > before, "{}", stage.log());
        Ok(())
    })
    .await;
    killed.kill().await.unwrap();
    load.more(50).await.unwrap();
    assert!(running.try_wait().unwrap().is_none(), "it goes on\n{}", stage.log());

    // Without the word a second one finds the ports taken.
    let second = stage.place.ended(&["gateway", "--config", &stage.config.display().to_string()]).await.unwrap();
    second.says("two gateways", 1, &["another program listens there"]);
    let served = load.end().await.unwrap();
    assert!(served > 1000, "{served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_leaves_says_that_it_is_not_ready_serves_on_and_drains_when_it_is_told_to_end() {
    let stage = Stage::new().await.unwrap();
    let mut running = stage.gateway(&[]).unwrap();
    stage.until_ready(200).await;
    let mut kept = TcpStream::connect(stage.http).await.unwrap();
    assert!(ask(&mut kept).await.unwrap());
    let config = stage.config.display().to_string();
    let left = stage.place.ended(&["gateway", "leave", "--config", &config, "--wait", "0"]).await.unwrap();
    left.says("leave", 0, &[]);
    stage.until_ready(503).await;
    assert!(ask(&mut kept).await.unwrap(), "who is connected is served");
    assert!(ask(&mut TcpStream::connect(stage.http).await.unwrap()).await.unwrap(), "and who comes");
    kill(Pid::from_raw(running.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
    until("nobody new is taken", async || {
        ensure!(TcpStream::connect(stage.http).await.is_err());
        Ok(())
    })
    .await;
    assert_eq!(stage.ready().await.unwrap(), 503, "it says so for as long as it drains");
    assert!(!ask(&mut kept).await.unwrap(), "a last request is answered, and hears of the end");
    assert_eq!(ended(&mut running).await.unwrap(), Some(0));
    let nobody = stage.place.ended(&["gateway", "leave", "--config", &config]).await.unwrap();
    nobody.says("nobody", 4, &["no gateway runs there"]);
}
