//! Who opens connections and says nothing, half of something, or something else: cut after a while, and nobody else notices.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::world::{FREE, LONG, Place, client, until};

/// More than the API server takes of strangers, from three addresses.
const MANY: usize = 450;
/// Every port cuts who says nothing within this: the slowest has 10 s for TLS and 30 s for a request's head.
const CUT_MAX: Duration = Duration::from_secs(50);
/// A TLS record that announces more than comes.
const HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

/// From other addresses than that of those who mean well.
async fn connect(at: SocketAddr, number: usize) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let from = ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.4:0"][number % 3];
    socket.bind(from.parse()?)?;
    Ok(socket.connect(at).await?)
}

/// Says `octets` one a second until it is cut.
async fn until_cut(mut stream: TcpStream, octets: &'static [u8]) {
    let mut answer = [0; 512];
    for octet in octets {
        if stream.write_all(&[*octet]).await.is_err() {
            return;
        }
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
            return;
        }
    }
    while matches!(stream.read(&mut answer).await, Ok(1..)) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_every_port_are_cut_and_nobody_else_notices() -> Result<()> {
    crate::install_provider();
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?.display().to_string();
    let up = place.up(&["--members", "0", "--config", &config]).await?;
    let kubeconfig = PathBuf::from(up.text("kubeconfig"));
    let maps: Api<ConfigMap> = Api::namespaced(client(&kubeconfig, "atoll").await?, "atoll-system");
    let hub = maps.get("atoll-hub").await?.data.unwrap_or_default()["advertise"].clone();
    // Beside the kubeconfig, for other commands.
    let ready = std::fs::read(kubeconfig.with_file_name("ready.json"))?;
    let ready: serde_json::Value = serde_json::from_slice(&ready)?;
    let plain = |field: &str| {
        let at = ready[field].as_str().unwrap_or_default();
        at.rsplit_once("//").map_or(at, |(_, at)| at).trim_matches('/').to_owned()
    };
    let mut ports = vec![("hub", hub)];
    ports.extend(["dns", "http", "https", "api", "console", "admin"].map(|field| (field, plain(field))));
    let (mut silent, mut slow) = (Vec::new(), Vec::new());
    for (name, at) in &ports {
        let at: SocketAddr = at.parse().with_context(|| format!("{name}: {at}"))?;
        for number in 0..MANY {
            silent.push((*name, connect(at, number).await?));
        }
        for octets in [HELLO, b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nS", b"\x00\x30\x00\x00"] {
            slow.push((*name, tokio::spawn(until_cut(connect(at, 0).await?, octets))));
        }
    }
    // Meanwhile everything answers.
    place.ended(&["get", "clusters"]).await?.says("API", 0, &[]);
    place.ended(&["check"]).await?.says("hub, DNS, gateway", 0, &["the hub answers", "DNS server", "gateway"]);
    let (_, admin) = ports.last().context("a port")?;
    let mut scrape = TcpStream::connect(admin).await?;
    scrape.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut said = String::new();
    timeout(LONG, scrape.read_to_string(&mut said)).await.context("the admin port does not answer")??;
    assert!(said.ends_with("ok\n"), "{said}");
    // And they all are gone after a while.
    let end = Instant::now() + CUT_MAX;
    for (name, mut stream) in silent {
        let mut answer = [0; 512];
        let cut = async { while matches!(stream.read(&mut answer).await, Ok(1..)) {} };
        tokio::select! {
            () = cut => {}
            () = sleep(end.saturating_duration_since(Instant::now())) => panic!("{name}: a silent connection stays"),
        }
    }
    for (name, slow) in slow {
        let end = end + Duration::from_secs(20);
        let left = end.saturating_duration_since(Instant::now());
        timeout(left, slow).await.with_context(|| format!("{name}: a slow connection stays"))??;
    }
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}

/// A request to a port in a whole connection: what came back until it was closed.
async fn ask(at: SocketAddr, words: &str) -> Result<String> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(words.as_bytes()).await?;
    let mut said = String::new();
    timeout(LONG, stream.read_to_string(&mut said)).await.context("it stays open")??;
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stands_still_at_the_gateway_is_cut_and_counted() -> Result<()> {
    crate::install_provider();
    let place = Place::new()?;
    let config = place.file("up.yaml", &format!("{FREE}gateway: {{limits: {{bodySeconds: 1}}}}\n"))?;
    let up = place.up(&["--members", "prod-eu", "--config", &config.display().to_string()]).await?;
    until("the shop is served", async || up.curl(crate::SHOP).await.map(drop)).await;
    let ready = std::fs::read(PathBuf::from(up.text("kubeconfig")).with_file_name("ready.json"))?;
    let ready: serde_json::Value = serde_json::from_slice(&ready)?;
    let (http, admin) = (up.text("http").parse()?, ready["admin"].as_str().context("an admin port")?.parse()?);
    let head = format!("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 9\r\n\r\nbegun", crate::SHOP);
    let said = ask(http, &head).await?;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    let metrics = ask(admin, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    assert!(metrics.contains("atoll_gateway_cut_total{with=\"body\"} 1"), "{metrics}");
    assert_eq!(up.interrupt().await?, Some(0));
    Ok(())
}
