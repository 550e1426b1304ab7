//! Serves an empty API server for trials by hand: `cargo run -p atoll-apiserver --example serve -- 127.0.0.1:6443 KUBECONFIG [FILE]`.
//! Kinds come in with `kubectl apply`, as on any API server.

use std::path::Path;

use anyhow::Context as _;
use atoll_apiserver::{ApiServer, Authority, Config, Context, Storage, kubeconfig_of};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, kubeconfig, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: serve ADDRESS KUBECONFIG [FILE]");
    };
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok().context("crypto provider")?;
    let storage = rest.first().map_or(Storage::Memory, |file| Storage::File(file.into()));
    let server = ApiServer::open(Config::default(), storage).await?;
    let authority = Authority::new("atoll-trial")?;
    let listener = TcpListener::bind(address).await?;
    let url = format!("https://{}", listener.local_addr()?);
    let (admin, dev) = (authority.user("admin", &["system:masters"])?, authority.user("dev", &["developers"])?);
    let contexts = [
        Context { name: "atoll", user: "admin", identity: &admin },
        Context { name: "atoll-dev", user: "dev", identity: &dev },
    ];
    tokio::fs::write(Path::new(kubeconfig), kubeconfig_of(&url, authority.ca_pem(), &contexts)).await?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let signal = tokio::spawn(async move {
        let ended = tokio::signal::ctrl_c().await;
        stop.cancel();
        ended
    });
    server.serve(listener, authority.tls(&["127.0.0.1", "localhost"])?, shutdown).await?;
    server.close().await;
    signal.await??;
    Ok(())
}
