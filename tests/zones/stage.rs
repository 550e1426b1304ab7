//! A federation without members that owns example.com, and the tools that are run against it.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use atoll_api::kinds::Zone;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::world::{FREE, LONG, Place, Up, client, until};

/// The secret of the key `k1`, HMAC-SHA256.
pub(crate) const SECRET: &str = "c2VjcmV0LXRoYXQtaXMtbG9uZy1lbm91Z2g=";

/// The hub, its zones, its DNS.
pub(crate) struct Stage {
    pub(crate) place: Place,
    pub(crate) hub: Client,
    up: Up,
}

impl Stage {
    /// `atoll up` without members; `k1` is a Secret.
    pub(crate) async fn new() -> Result<Self> {
        Self::with("0", FREE).await
    }

    /// The same with members, or configured otherwise.
    pub(crate) async fn with(members: &str, config: &str) -> Result<Self> {
        // Another test of this process may have been faster.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self::at(Place::new()?, members, config).await
    }

    /// The same at this place.
    pub(crate) async fn at(place: Place, members: &str, config: &str) -> Result<Self> {
        let config = place.file("up.yaml", config)?;
        let up = place.up(&["--members", members, "--config", &config.display().to_string()]).await?;
        let hub = client(&PathBuf::from(up.text("kubeconfig")), "atoll").await?;
        let secrets: Api<Secret> = Api::namespaced(hub.clone(), "atoll-system");
        let secret = json!({"metadata": {"name": "k1"}, "stringData": {"secret": SECRET, "algorithm": "hmac-sha256"}});
        secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        Ok(Self { place, hub, up })
    }

    /// Makes the zone `example.com` of this spec, and waits until it is served.
    pub(crate) async fn zone(&self, spec: Value) -> Result<()> {
        let mut whole = json!({
            "apex": "example.com", "ns": ["ns1.example.com"], "tsigKeys": {"k1": "k1"},
            "allow": {"update": [{"tsig": "k1"}], "transfer": [{"tsig": "k1"}]},
            "records": [
                {"name": "ns1", "type": "A", "values": ["127.0.0.1"]},
                {"name": "www", "type": "A", "ttl": 60, "values": ["192.0.2.80"]},
                {"name": "*.wild", "type": "TXT", "ttl": 2730, "values": ["from the wildcard"]},
                {"name": "alias", "type": "CNAME", "values": ["www.example.com."]},
                {"name": "a.empty", "type": "MX", "values": ["10 mail.example.com."]},
                {"name": "sub", "type": "NS", "values": ["ns.sub.example.com."]},
                {"name": "ns.sub", "type": "A", "values": ["192.0.2.53"]},
            ],
        });
        for (key, value) in spec.as_object().context("a spec")? {
            whole[key] = value.clone();
        }
        let apex = whole["apex"].as_str().unwrap_or_default().to_owned();
        let name = apex.replace('.', "-");
        let zones: Api<Zone> = Api::all(self.hub.clone());
        let object =
            json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Zone", "metadata": {"name": name}, "spec": whole});
        zones.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
        until("the zone is accepted", async || {
            let zone = zones.get(&name).await?;
            let conditions = zone.status.map(|s| s.conditions).unwrap_or_default();
            ensure!(conditions.iter().any(|c| c.type_ == "Accepted" && c.status == "True"), "{conditions:?}");
            let soa = self.dig(&["SOA", &apex, "+short"]).await?;
            ensure!(!soa.trim().is_empty() && !soa.contains("communications"), "{soa}");
            Ok(())
        })
        .await;
        Ok(())
    }

    /// Address and port of its DNS.
    pub(crate) fn dns(&self) -> (&str, &str) {
        self.up.text("dns").rsplit_once(':').unwrap_or(("127.0.0.1", "0"))
    }

    /// Where its gateway is served.
    pub(crate) fn http(&self) -> &str {
        self.up.text("http")
    }

    pub(crate) fn kubeconfig(&self) -> &str {
        self.up.text("kubeconfig")
    }

    /// What `dig` prints for these words.
    pub(crate) async fn dig(&self, words: &[&str]) -> Result<String> {
        let (address, port) = self.dns();
        let at = format!("@{address}");
        let mut all = vec![at.as_str(), "-p", port, "+time=5", "+tries=1"];
        all.extend(words);
        Ok(run("dig", "bind9-dnsutils", &all, "").await?.1)
    }

    /// Runs an update script as `key`; what nsupdate says goes into the error. SERVFAIL is no last word: the hub did not store it in time
    /// (a machine that does much else), and who updates asks again.
    pub(crate) async fn nsupdate(&self, key: Option<&str>, lines: &str) -> Result<()> {
        let (address, port) = self.dns();
        let script = format!("server {address} {port}\nzone example.com\n{lines}\nsend\n");
        let key = key.map(|key| format!("hmac-sha256:{key}"));
        let words: Vec<&str> = key.as_deref().map_or_else(Vec::new, |key| vec!["-y", key]);
        let end = Instant::now() + LONG;
        loop {
            let (ok, said) = run("nsupdate", "bind9-dnsutils", &words, &script).await?;
            if ok {
                return Ok(());
            }
            ensure!(said.contains("SERVFAIL") && Instant::now() < end, "{said}");
        }
    }

    /// Ends it, and well.
    pub(crate) async fn end(self) -> Result<()> {
        let code = self.up.interrupt().await?;
        ensure!(code == Some(0), "`atoll up` ended with {code:?}");
        Ok(())
    }
}

/// Ports that this process gave away: their programs may not listen yet.
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// A port that nobody has, for UDP and TCP, and that nobody gets who binds to port 0 meanwhile: it is below the kernel's own range
/// (`net.ipv4.ip_local_port_range`, from 32768), and another one in each process that runs these tests.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let number = std::process::id().wrapping_mul(61).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = 15_000 + u16::try_from(number % 17_000)?;
        let at = ("127.0.0.1", port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free")
}

/// Where a program is; says which package has it.
pub(crate) fn program(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)).find(|p| p.is_file());
    found.with_context(|| format!("{name} is not installed: apt-get install {package}"))
}

/// Runs a program with this on its stdin: whether it ended well, and all that it said.
pub(crate) async fn run(name: &str, package: &str, words: &[&str], stdin: &str) -> Result<(bool, String)> {
    let mut command = Command::new(program(name, package)?);
    command.args(words).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("its stdin")?;
    input.write_all(stdin.as_bytes()).await?;
    drop(input);
    let out = timeout(LONG, child.wait_with_output()).await.with_context(|| format!("{name} does not end"))??;
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Ok((out.status.success(), said))
}

/// A file's path as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
