//! The hub: the real one, on an embedded API server over one file. It is told on stdin what people would do at its API.
//!
//! ```text
//!   token NAME          a line with a token
//!   own N LAST          writes the record of one of our own names; a line `done` once it is acknowledged
//!   nearest M S         a TrafficPolicy for service S of member M; a line `done`
//! ```

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::{DNSEndpoint, TrafficPolicy, crds, standard_crds};
use atoll_apiserver::{ApiServer, Config as ApiConfig, Storage};
use atoll_federation::tokens::{TokenRequest, create_token};
use atoll_federation::{Config, NoView, PushMember, Resources, StartPush};
use atoll_reach::{Listen as _, RelayTable, System};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::federation::{APEX, own, own_address};
use crate::{Result, say};

/// Runs until stdin ends.
pub(crate) async fn run(dir: &Path) -> Result<()> {
    let server = ApiServer::open(ApiConfig::default(), Storage::File(dir.join("hub.redb"))).await?;
    let client = server.client();
    let kinds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in crds().into_iter().chain(standard_crds()) {
        kinds.create(&PostParams::default(), &kind).await?;
    }
    let listener = System::default().tcp("127.0.0.1:0".parse()?).await?;
    let at = listener.local_addr();
    let config = Config { advertise: at.to_string(), apex: APEX.into(), ..Config::default() };
    let (started, up) = oneshot::channel();
    let resources = Resources {
        client: client.clone(),
        listener,
        webhook: None,
        console: None,
        connect: Arc::new(System::default()),
        relays: RelayTable::default(),
        metrics: prometheus::Registry::new(),
        push: Arc::new(NoPush),
        view: Arc::new(NoView),
        started: Some(started),
    };
    let end = CancellationToken::new();
    let hub = tokio::spawn(atoll_federation::run(config, resources, end.clone()));
    up.await?;
    identity(&client, &dir.join("dns.json")).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for n in 0..20 {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(format!("ns{n}"));
        namespaces.create(&PostParams::default(), &namespace).await?;
    }
    say(format!("ready {at}"))?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        say(obey(&client, &line.split(' ').collect::<Vec<_>>()).await?)?;
    }
    end.cancel();
    hub.await??;
    server.close().await;
    Ok(())
}

async fn obey(client: &Client, words: &[&str]) -> Result<String> {
    let params = PatchParams::apply("bench").force();
    match words {
        ["token", name] => {
            // Guessed from such a name it would be an environment, and so a cluster set, of the member's own.
            let prod = TokenRequest { environment: Some("prod".into()), ..TokenRequest::new(name.parse()?) };
            Ok(create_token(client, &prod).await?.token.to_string())
        }
        ["own", n, last] => {
            let [a, b, c, d] = own_address(last.parse()?);
            let name = format!("own{n}");
            let object = json!({"apiVersion": "externaldns.k8s.io/v1alpha1", "kind": "DNSEndpoint",
                "metadata": {"name": name}, "spec": {"endpoints": [{"dnsName": own(n.parse()?), "recordType": "A",
                "recordTTL": 5, "targets": [format!("{a}.{b}.{c}.{d}")]}]}});
            let api: Api<DNSEndpoint> = Api::namespaced(client.clone(), "ns0");
            api.patch(&name, &params, &Patch::Apply(&object)).await?;
            Ok("done".into())
        }
        ["nearest", m, s] => {
            let s: usize = s.parse()?;
            let (name, namespace) = (format!("s{s}-m{m}"), format!("ns{}", s % 20));
            let object = json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": name},
                "spec": {"service": name, "answer": "Endpoints", "strategy": [{"policy": "nearest"}], "ttlSeconds": 5}});
            let api: Api<TrafficPolicy> = Api::namespaced(client.clone(), &namespace);
            api.patch(&name, &params, &Patch::Apply(&object)).await?;
            Ok("done".into())
        }
        _ => Err(format!("`{}` is no command", words.join(" ")).into()),
    }
}

/// Writes down the certificate of DNS servers, for the process that is one.
async fn identity(client: &Client, file: &Path) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "atoll-system");
    let data = secrets.get("atoll-site-dns").await?.data.unwrap_or_default();
    let text = |key: &str| data.get(key).map(|v| String::from_utf8_lossy(&v.0).into_owned());
    let held = json!({"chain": text("tls.crt"), "key": text("tls.key"), "ca": text("ca.crt")});
    std::fs::write(file, held.to_string())?;
    Ok(())
}

struct NoPush;

#[async_trait]
impl StartPush for NoPush {
    async fn run(&self, _: PushMember, _: CancellationToken) -> std::result::Result<(), String> {
        Err("nobody is pushed to here".into())
    }
}
