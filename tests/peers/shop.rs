//! `http://shop.test/` at a running `atoll up`: a Gateway, a route to a backend that says what it got, servers beside it, and a browser.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use atoll_testbed::programs::{Programs, peers};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::stage::{Stage, free_port, run};
use crate::world::{FREE, until};

static BUILDING: Mutex<()> = Mutex::const_new(());

/// The federation, its route, and who runs beside it.
pub(crate) struct Shop {
    pub(crate) stage: Stage,
    programs: Programs,
    running: Vec<(&'static str, Child)>,
}

/// An answer: its status, its head, its body, and the URL that gave it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) url: String,
}

impl Shop {
    /// `atoll up`, the Gateway and the route `web` to a backend that answers with the head and body that it got.
    pub(crate) async fn open() -> Result<Self> {
        let programs = {
            // Two tests at once would build the same.
            let _one = BUILDING.lock().await;
            peers().await?
        };
        let shop = Self { stage: Stage::with("0", FREE).await?, programs, running: Vec::new() };
        shop.apply(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "main"},
            "spec": {"gatewayClassName": "atoll", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}),
        )
        .await?;
        shop.service("web", echo().await?, None).await?;
        shop.route(json!([{"backendRefs": [{"name": "web", "port": 80}]}])).await?;
        until("the shop is open", async || {
            let page = shop.browse(&["/"]).await?;
            ensure!(page.status == 200, "{page:?}");
            Ok(())
        })
        .await;
        Ok(shop)
    }

    /// Applies an object to the hub.
    pub(crate) async fn apply(&self, mut object: Value) -> Result<()> {
        object["metadata"]["namespace"] = json!("default");
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.clone().context("a kind")?;
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.stage.hub.clone(), "default", &resource);
        let name = object.metadata.name.clone().context("a name")?;
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// The route's rules.
    pub(crate) async fn route(&self, rules: Value) -> Result<()> {
        self.apply(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"},
            "spec": {"parentRefs": [{"name": "main"}], "hostnames": ["shop.test"], "rules": rules}}),
        )
        .await
    }

    /// The route's policy.
    pub(crate) async fn policy(&self, filters: Value) -> Result<()> {
        let target = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"});
        self.apply(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": "web"},
            "spec": {"targetRefs": [target], "filters": filters}}))
            .await
    }

    /// A Service of the hub's own API that is somewhere on this machine.
    pub(crate) async fn service(&self, name: &str, at: SocketAddr, protocol: Option<&str>) -> Result<()> {
        let mut port = json!({"name": "http", "port": 80, "targetPort": at.port(), "protocol": "TCP"});
        if let Some(protocol) = protocol {
            port["appProtocol"] = json!(protocol);
        }
        self.apply(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [port]}}),
        )
        .await?;
        self.apply(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [at.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": at.port(), "protocol": "TCP"}]}))
            .await
    }

    /// Starts a program at a port, and waits until it listens there.
    pub(crate) async fn start(&mut self, name: &'static str, port: u16, words: &[String]) -> Result<SocketAddr> {
        let log = std::fs::File::create(self.log(name))?;
        let mut command = Command::new(self.programs.path(name));
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.running.push((name, command.spawn().with_context(|| format!("{name} does not start"))?));
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        until(name, async || {
            let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
            TcpStream::connect(at).await.map(drop).with_context(|| format!("{name} does not listen: {log}"))
        })
        .await;
        Ok(at)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.stage.place.at(&format!("{name}.log"))
    }

    /// Starts dex, whose client `atoll` comes back to `http://shop.test/oauth2/callback`. Returns the issuer.
    pub(crate) async fn dex(&mut self) -> Result<String> {
        let port = free_port()?;
        let issuer = format!("http://127.0.0.1:{port}/dex");
        let words = [
            format!("-listen=127.0.0.1:{port}"),
            format!("-issuer={issuer}"),
            "-redirects=http://shop.test/oauth2/callback".to_owned(),
        ];
        self.start("dex", port, &words).await?;
        Ok(issuer)
    }

    /// What a browser with a jar of cookies gets, which follows redirects; the first word is a path of the shop, or a URL.
    pub(crate) async fn browse(&self, words: &[&str]) -> Result<Page> {
        let (jar, head) = (self.stage.place.at("jar"), self.stage.place.at("head"));
        let (jar, head) = (jar.display().to_string(), head.display().to_string());
        let to = format!("shop.test:80:{}", self.stage.http());
        let url = if words[0].starts_with('/') { format!("http://shop.test{}", words[0]) } else { words[0].to_owned() };
        let mut all = vec!["--silent", "--show-error", "--location", "--max-time", "20", "--connect-to", &to];
        all.extend(["--cookie", &jar, "--cookie-jar", &jar, "--dump-header", &head, "--header", "accept: text/html"]);
        all.extend(["--write-out", "\n%{http_code} %{url_effective}", &url]);
        all.extend(&words[1..]);
        let (ok, said) = run("curl", "curl", &all, "").await?;
        ensure!(ok, "curl {all:?}: {said}");
        let (body, last) = said.rsplit_once('\n').context("what curl writes last")?;
        let (status, url) = last.split_once(' ').context("a status and a URL")?;
        let head = std::fs::read_to_string(&head)?;
        Ok(Page { status: status.parse()?, head, body: body.to_owned(), url: url.to_owned() })
    }

    /// Asks for a path until the login page of dex comes.
    pub(crate) async fn until_login(&self, path: &str) -> Page {
        until("people are sent to dex", async || {
            let page = self.browse(&[path]).await?;
            ensure!(page.url.contains("/dex/auth/local"), "{page:?}");
            Ok(page)
        })
        .await
    }

    /// Fills the login page, and returns where that leads.
    pub(crate) async fn log_in(&self, page: &Page, password: &str) -> Result<Page> {
        ensure!(page.body.contains("name=\"password\""), "no login page: {page:?}");
        let form = format!("login=anna@example.com&password={password}");
        self.browse(&[&page.url, "--data", &form]).await
    }

    /// Ends everything, and well.
    pub(crate) async fn close(mut self) -> Result<()> {
        for (name, child) in &mut self.running {
            child.start_kill().with_context(|| format!("{name} has ended"))?;
            child.wait().await?;
        }
        self.stage.end().await
    }
}

/// A backend that answers with the head and the body that it got.
async fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(said(stream));
        }
    });
    Ok(at)
}

async fn said(mut stream: TcpStream) -> Result<()> {
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let head = head.to_ascii_lowercase();
            if head.contains("transfer-encoding: chunked") {
                return body.ends_with("0\r\n\r\n");
            }
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            body.len() >= length.unwrap_or(0)
        });
        if whole {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length";
            stream.write_all(format!("{head}: {}\r\n\r\n{text}", text.len()).as_bytes()).await?;
            return Ok(());
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await?;
        ensure!(read > 0, "it ends before its request does");
        got.extend_from_slice(&piece[..read]);
    }
}
