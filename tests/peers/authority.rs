//! A CA that speaks ACME: pebble, which refuses good nonces by chance, forgets proofs by chance, and looks when it likes. In front of it a
//! federation with two replicas of a gateway, at two addresses of one name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atoll_testbed::programs::pebble;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::stage::{Stage, free_port, run};
use crate::world::{Place, until};

static BUILDING: Mutex<()> = Mutex::const_new(());

/// Validations sleep, nonces are refused, machines are slow.
const PATIENCE: Duration = Duration::from_secs(240);
/// Where the replicas are served.
pub(crate) const REPLICAS: [&str; 2] = ["127.16.7.1", "127.16.7.2"];

/// The federation, its CA, its gateways.
pub(crate) struct Authority {
    pub(crate) stage: Stage,
    pebble: PathBuf,
    /// What the CA is told beside its ports.
    told: Value,
    port: u16,
    management: u16,
    http: u16,
    https: u16,
    running: Option<Child>,
    gateways: BTreeMap<&'static str, Child>,
    hub: u16,
    /// What gateways are told of it, beside where it is.
    acme: String,
}

impl Authority {
    /// `told`: what pebble is told beside its ports; `acme`: what gateways are told beside where it is.
    pub(crate) async fn open(told: Value, acme: &str) -> Result<Self> {
        let (hub, place) = (free_port()?, Place::new()?);
        let any = "'127.0.0.1:0'";
        let listen = format!(
            "listen: {{api: {any}, hub: '127.0.0.1:{hub}', dns: {any}, http: {any}, https: {any}, console: {any}, dnsRelay: {any}, \
             gatewayRelay: {any}, admin: {any}}}\ngateway: {{classes: [other]}}\n"
        );
        let stage = Stage::at(place, "0", &listen).await?;
        let pebble = {
            // Two tests at once would build the same.
            let _one = BUILDING.lock().await;
            pebble().await?
        };
        let mut authority = Self {
            stage,
            pebble,
            told,
            port: free_port()?,
            management: free_port()?,
            http: free_port()?,
            https: free_port()?,
            running: None,
            gateways: BTreeMap::new(),
            hub,
            acme: acme.to_owned(),
        };
        authority.name_at(&REPLICAS).await?;
        authority.certify()?;
        authority.begin().await?;
        Ok(authority)
    }

    /// All of example.com is at these.
    pub(crate) async fn name_at(&self, addresses: &[&str]) -> Result<()> {
        let records = json!([{"name": "*", "type": "A", "ttl": 1, "values": addresses},
            {"name": "ns1", "type": "A", "values": ["127.0.0.1"]}]);
        self.stage.zone(json!({"records": records})).await?;
        let mut expected: Vec<&str> = addresses.to_vec();
        expected.sort_unstable();
        until("its DNS says so", async || {
            let said = self.stage.dig(&["A", "any.example.com", "+short"]).await?;
            let mut said: Vec<&str> = said.split_whitespace().collect();
            said.sort_unstable();
            ensure!(said == expected, "{said:?}");
            Ok(())
        })
        .await;
        Ok(())
    }

    /// The certificate that the CA's own server shows.
    fn certify(&self) -> Result<()> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        self.stage.place.file("ca.pem", &made.cert.pem())?;
        self.stage.place.file("ca.key", &made.signing_key.serialize_pem())?;
        Ok(())
    }

    /// Starts the CA; whatever it knew before is forgotten.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let at = |name: &str| self.stage.place.at(name).display().to_string();
        let mut pebble = json!({
            "listenAddress": format!("127.0.0.1:{}", self.port), "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": at("ca.pem"), "privateKey": at("ca.key"), "httpPort": self.http, "tlsPort": self.https,
            "ocspResponderURL": "", "retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
            "profiles": {"default": {"description": "as usual", "validityPeriod": 7_776_000}},
        });
        for (key, value) in self.told.as_object().context("what it is told")? {
            pebble[key] = value.clone();
        }
        let config = self.stage.place.file("pebble.json", &json!({"pebble": pebble}).to_string())?;
        let (address, port) = self.stage.dns();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(at("pebble.log"))?;
        let mut command = Command::new(&self.pebble);
        command.args(["-config", &config.display().to_string(), "-dnsserver", &format!("{address}:{port}")]);
        // Its random failures stay as they are: 5 % of nonces refused, half of the proofs used again, up to so many seconds until it looks.
        command.env("PEBBLE_VA_SLEEPTIME", "2").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.running = Some(command.kill_on_drop(true).spawn()?);
        until("the CA listens", async || {
            TcpStream::connect(("127.0.0.1", self.port)).await.context("not yet")?;
            TcpStream::connect(("127.0.0.1", self.management)).await.context("not yet").map(drop)
        })
        .await;
        let root = self.managed("/roots/0", &[]).await?;
        ensure!(root.contains("BEGIN CERTIFICATE"), "{root}");
        self.stage.place.file("root.pem", &root)?;
        Ok(())
    }

    /// Ends the CA.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it runs")?;
        running.kill().await?;
        Ok(())
    }

    /// Asks the CA's management.
    pub(crate) async fn managed(&self, path: &str, words: &[&str]) -> Result<String> {
        let url = format!("https://127.0.0.1:{}{path}", self.management);
        let mut all = vec!["--silent", "--show-error", "--insecure", "--fail", "--max-time", "20", &url];
        all.extend(words);
        let (ok, said) = run("curl", "curl", &all, "").await?;
        ensure!(ok, "curl {all:?}: {said}");
        Ok(said)
    }

    /// Starts a replica.
    pub(crate) async fn gateway(&mut self, address: &'static str) -> Result<()> {
        let (relay, admin) = (free_port()?, free_port()?);
        let ca = self.stage.place.at("ca.pem");
        let config = format!(
            "kubeconfig: '{}'\nhub: '127.0.0.1:{}'\nsite: 'at-{}'\nlisten: {{http: '{address}:{}', https: '{address}:{}', \
             gatewayRelay: '127.0.0.1:{relay}', admin: '127.0.0.1:{admin}'}}\ngateway: {{acme: {{directory: 'https://127.0.0.1:{}/dir', \
             caFile: '{}', agreeToTerms: true, contact: [ops@example.com]{}}}}}\n",
            self.stage.kubeconfig(),
            self.hub,
            address.replace('.', "-"),
            self.http,
            self.https,
            self.port,
            ca.display(),
            self.acme,
        );
        let config = self.stage.place.file(&format!("{address}.yaml"), &config)?;
        let log = self.stage.place.at(&format!("{address}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(["gateway", "--config"]).arg(config).env("ATOLL_HOME", self.stage.place.home());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.gateways.insert(address, command.spawn()?);
        until("the replica is ready", async || {
            let words = ["--silent", "--fail", &format!("http://127.0.0.1:{admin}/readyz")];
            let (ok, said) = run("curl", "curl", &words, "").await?;
            ensure!(ok, "{said}");
            Ok(())
        })
        .await;
        Ok(())
    }

    /// Kills a replica as it stands.
    pub(crate) async fn kill(&mut self, address: &str) -> Result<()> {
        self.gateways.remove(address).context("it runs")?.kill().await?;
        Ok(())
    }

    /// The replica that leads.
    pub(crate) async fn leader(&self) -> Result<&'static str> {
        let leases: Api<Lease> = Api::namespaced(self.stage.hub.clone(), "atoll-system");
        let holder = leases.get("atoll-gateway").await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let at = REPLICAS.into_iter().find(|at| holder.contains(&at.replace('.', "-")));
        at.with_context(|| format!("`{holder}` leads"))
    }

    /// Applies an object of namespace `default` to the hub.
    pub(crate) async fn apply(&self, mut object: Value) -> Result<DynamicObject> {
        object["metadata"]["namespace"] = json!("default");
        let object: DynamicObject = serde_json::from_value(object)?;
        let api = self.api(&object.types.as_ref().context("a kind")?.kind)?;
        let name = object.metadata.name.clone().context("a name")?;
        Ok(api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?)
    }

    /// Objects of namespace `default`, of one of the kinds that are used here.
    pub(crate) fn api(&self, kind: &str) -> Result<Api<DynamicObject>> {
        let (group, version) = match kind {
            "Gateway" => ("gateway.networking.k8s.io", "v1"),
            "Ingress" => ("networking.k8s.io", "v1"),
            "Secret" | "Event" => ("", "v1"),
            other => anyhow::bail!("{other}"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Ok(Api::namespaced_with(self.stage.hub.clone(), "default", &resource))
    }

    /// A Gateway of class `atoll` that asks for certificates of these hosts, each in the Secret named after its first word.
    pub(crate) async fn listen(&self, name: &str, hosts: &[String]) -> Result<()> {
        let mut listeners = vec![json!({"name": "http", "port": 80, "protocol": "HTTP"})];
        listeners.extend(hosts.iter().enumerate().map(|(at, host)| {
            json!({"name": format!("https-{at}"), "port": 443, "protocol": "HTTPS", "hostname": host,
                "tls": {"certificateRefs": [{"name": secret(host)}]}})
        }));
        self.apply(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": name, "annotations": {"kubernetes.io/tls-acme": "true"}},
            "spec": {"gatewayClassName": "atoll", "listeners": listeners}}))
            .await
            .map(drop)
    }

    /// The condition of a Gateway that says how its certificates are: status, reason, message.
    pub(crate) async fn condition(&self, name: &str) -> Result<[String; 3]> {
        let object = self.api("Gateway")?.get(name).await?;
        let all = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == "atoll.dev/CertificatesCurrent").context("no such condition")?;
        Ok(["status", "reason", "message"].map(|part| found[part].as_str().unwrap_or_default().to_owned()))
    }

    /// The leaf in a Secret.
    pub(crate) async fn leaf(&self, host: &str) -> Result<String> {
        let secrets: Api<Secret> = Api::namespaced(self.stage.hub.clone(), "default");
        let data = secrets.get(&secret(host)).await?.data.unwrap_or_default();
        let chain = String::from_utf8(data.get("tls.crt").context("no tls.crt")?.0.clone())?;
        let end = "-----END CERTIFICATE-----\n";
        Ok(chain.split_inclusive(end).next().unwrap_or_default().to_owned())
    }

    /// A request by HTTPS to a replica, which must show a certificate of the CA's.
    pub(crate) async fn browse(&self, address: &str, host: &str) -> Result<String> {
        let root = self.stage.place.at("root.pem").display().to_string();
        let to = format!("{host}:443:{address}:{}", self.https);
        let url = format!("https://{host}/");
        let words = ["--silent", "--show-error", "--max-time", "20", "--cacert", &root, "--connect-to", &to, &url];
        let (ok, said) = run("curl", "curl", &words, "").await?;
        ensure!(ok, "{host} at {address}: {said}");
        Ok(said)
    }

    /// How many objects of a kind of ours there are in the system namespace: orders are Secrets, challenges ConfigMaps.
    pub(crate) async fn count(&self, what: &str) -> Result<usize> {
        let list = ListParams::default().labels(&format!("atoll.dev/acme={what}"));
        if what == "challenge" {
            let api: Api<ConfigMap> = Api::namespaced(self.stage.hub.clone(), "atoll-system");
            return Ok(api.list(&list).await?.items.len());
        }
        let api: Api<Secret> = Api::namespaced(self.stage.hub.clone(), "atoll-system");
        Ok(api.list(&list).await?.items.len())
    }

    /// As [`until`], with more patience; says what the replicas logged if it does not come.
    pub(crate) async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Result<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            match ask().await {
                Ok(done) => return done,
                Err(last) if Instant::now() > end => {
                    let log = |name: &str| {
                        let text = std::fs::read_to_string(self.stage.place.at(name)).unwrap_or_default();
                        text.lines().rev().take(40).map(|line| format!("{line}\n")).collect::<String>()
                    };
                    let logs = REPLICAS.map(|at| log(&format!("{at}.log"))).join("\n");
                    panic!("{what}: {last:#}\nnewest first:\n{logs}\n{}", log("pebble.log"));
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Ends everything, and well.
    pub(crate) async fn close(mut self) -> Result<()> {
        for child in self.gateways.values_mut() {
            child.kill().await?;
        }
        if let Some(mut running) = self.running.take() {
            running.kill().await?;
        }
        self.stage.end().await
    }
}

/// The Secret of a host.
pub(crate) fn secret(host: &str) -> String {
    format!("{}-tls", host.split('.').next().unwrap_or_default().replace('*', "all"))
}
