//! A DNS server that follows the hub, as `atoll dns` does.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use atoll_dns::{Config, Encrypted, Files, Resources};
use atoll_reach::{
    Connect as _, Dialer, Expect, Identity, Listen as _, RelayTable, Revocations, Route, Routes, System, TlsIdentity,
};
use atoll_wire::channel::{self, GRPC_ALPN};
use atoll_wire::follow::{Follow, Report, follow};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Result, say};

/// Runs until it is killed.
pub(crate) async fn run(dir: &Path, hub: &str, at: SocketAddr) -> Result<()> {
    let held: Value = serde_json::from_slice(&std::fs::read(dir.join("dns.json"))?)?;
    let text = |key: &str| held[key].as_str().unwrap_or_default().to_owned();
    let identity = Identity::from_pem(&text("chain"), &text("key"), &text("ca"))?;
    let tls = TlsIdentity::new(identity, Revocations::none())?;
    let (end, system) = (CancellationToken::new(), System::default());
    let site = atoll_api::topology::Site {
        instance: "dns-1".into(),
        kind: "dns".into(),
        ..atoll_api::topology::Site::default()
    };
    let (report, reports) = watch::channel(Report { site, ..Report::default() });
    let hub = hub.to_owned();
    let dial = move || {
        let (tls, hub) = (tls.clone(), hub.clone());
        async move {
            let at: SocketAddr = hub.parse().map_err(std::io::Error::other)?;
            let tcp = System::default().connect(&at.ip().to_string(), at.port()).await?;
            let stream = tls.connect(tcp, "localhost", Expect::Hub, &[GRPC_ALPN]).await?.stream;
            channel::over(stream, &hub).await.map_err(std::io::Error::other)
        }
    };
    let kept = Follow { hub_id: None, dir: Some(dir.join("dns")) };
    let (topology, line, following) = follow(kept, dial, reports, end.clone()).await;
    tokio::spawn(following);
    // The one that has a DNS: a probe would find that it is reached.
    let routes = Routes::default();
    routes.set([(crate::federation::member(0), Route::Direct)].into());
    let resources = Resources {
        topology,
        dialer: Dialer::new(Arc::new(system.clone()), RelayTable::default(), routes),
        report,
        connect: Arc::new(system.clone()),
        listen: Arc::new(system.clone()),
        udp: vec![UdpSocket::bind(at)?],
        tcp: system.tcp(at).await?,
        encrypted: Encrypted::default(),
        files: Files::default(),
        taps: Vec::new(),
        line,
        cookies: None,
        metrics: prometheus::Registry::new(),
        dir: None,
        started: None,
    };
    say("ready")?;
    Ok(atoll_dns::run(Config { instance: "dns-1".into(), ..Config::default() }, resources, end).await?)
}
