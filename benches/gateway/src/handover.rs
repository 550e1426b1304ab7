//! Ten gateways after one another at one place, while requests keep coming at a rate: the real program, as people start it.
//!
//! ```text
//!   crowd (open loop) ─► atoll gateway ─► atoll gateway --take-over ─► … ─► an endpoint of this process
//! ```
//!
//! In: the program, a rate, how often, a folder. Out: how many requests failed, the slowest, and how long each change took: from the start of the next
//! process until the one before it was gone.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::failure::Crowd;
use crate::objects::{apply, service};
use crate::{Result, say};

/// A process starts, and ends, within this time.
const TURN_MAX: Duration = Duration::from_secs(60);

/// Measures `count` changes.
pub(crate) async fn run(program: &Path, rate: f64, count: usize, folder: &Path) -> Result<()> {
    let origin = origin().await?;
    let (mut hub, kubeconfig, link) = hub(program, folder).await?;
    let loaded = kube::config::Kubeconfig::read_from(&kubeconfig)?;
    let client = kube::Client::try_from(kube::Config::from_custom_kubeconfig(loaded, &Default::default()).await?)?;
    let all = json!({"namespaces": {"from": "All"}});
    let mut objects: Vec<Value> = ["infra", "shop"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .into();
    objects.push(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "main", "namespace": "infra"}, "spec": {"gatewayClassName": "atoll",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": all}]}}));
    objects.extend(service("web", origin, None));
    objects.push(crate::objects::route("web", "shop.test", "/", "web"));
    for object in objects {
        apply(client.clone(), object).await?;
    }
    let [http, https, relay, admin] = free()?;
    let config = folder.join("gateway.yaml");
    let text = format!(
        "kubeconfig: '{}'\nhub: '{link}'\ndataDir: '{}'\nsite: bench\nlisten: {{http: '{http}', https: '{https}', gatewayRelay: '{relay}', \
         admin: '{admin}'}}\n",
        kubeconfig.display(),
        folder.join("gateway").display(),
    );
    std::fs::write(&config, text)?;
    let mut running = gateway(program, &config, folder)?;
    let crowd = Crowd::start(http, rate);
    crowd.until_served().await?;
    sleep(Duration::from_secs(2)).await;
    crowd.take();
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let began = Instant::now();
        let next = gateway(program, &config, folder)?;
        let ended = timeout(TURN_MAX, running.wait()).await.map_err(|_| "the gateway before it does not end")??;
        if !ended.success() {
            return Err(format!("the gateway before it ended with {ended}").into());
        }
        slowest = slowest.max(began.elapsed());
        running = next;
        sleep(Duration::from_secs(1)).await;
    }
    let seen = crowd.settled().await;
    crowd.stop().await;
    say("handovers", count)?;
    say("slowest_change_ms", slowest.as_millis())?;
    say("requests", &seen)?;
    say("failed", seen.failed())?;
    running.kill().await?;
    Ok(hub.kill().await?)
}

fn gateway(program: &Path, config: &Path, folder: &Path) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("gateway.log"))?;
    let mut command = Command::new(program);
    command.args(["gateway", "--take-over", "--config"]).arg(config).env("ATOLL_HOME", folder.join("home"));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true).spawn()?)
}

/// A hub with its API: its kubeconfig, and where gateways follow it.
async fn hub(program: &Path, folder: &Path) -> Result<(Child, PathBuf, SocketAddr)> {
    let [link] = free()?;
    let any = "'127.0.0.1:0'";
    let listen = format!(
        "listen: {{api: {any}, hub: '{link}', dns: {any}, http: {any}, https: {any}, console: {any}, dnsRelay: {any}, gatewayRelay: {any}, \
         admin: {any}}}\n"
    );
    let config = folder.join("up.yaml");
    std::fs::write(&config, listen)?;
    let mut command = Command::new(program);
    command.args(["up", "-o", "json", "--members", "0", "--config"]).arg(config).env("ATOLL_HOME", folder.join("home"));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    timeout(TURN_MAX, out.read_line(&mut line)).await.map_err(|_| "the hub is not ready")??;
    let ready: Value = serde_json::from_str(&line)?;
    let kubeconfig = ready["kubeconfig"].as_str().ok_or("no kubeconfig")?.into();
    Ok((child, kubeconfig, link))
}

fn free<const N: usize>() -> Result<[SocketAddr; N]> {
    let held = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    let at = held.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    at.try_into().map_err(|_| "no ports are free".into())
}

/// An endpoint that answers at once.
async fn origin() -> Result<SocketAddr> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    // Each new gateway opens all its connections at once.
    let listener = socket.listen(4096)?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let (mut got, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = stream.read(&mut part).await {
                    got.extend_from_slice(&part[..n]);
                    let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
                    // A POST's body is as long as its number says.
                    let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
                    if got.len() < end + 4 + length.unwrap_or(0) {
                        continue;
                    }
                    got.clear();
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(at)
}
