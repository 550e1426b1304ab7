//! The file as it is written: every key, nothing but these keys. Checked here, once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use atoll_api::topology::Standing;
use atoll_reach::host_and_port;
use ipnet::IpNet;
use serde::Deserialize;

use super::{Advertise, Agent, Clients, Config, Dns, Gateway, Listen, Listens};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct File {
    apex: Option<String>,
    default_set: Option<String>,
    data_dir: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    embedded: Option<String>,
    hub: Option<String>,
    site: Option<String>,
    standing: Standing,
    listen: FileListen,
    advertise: FileAdvertise,
    dns: FileDns,
    gateway: FileGateway,
    agent: FileAgent,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileListen {
    api: Option<String>,
    hub: Option<String>,
    dns: Option<String>,
    http: Option<String>,
    https: Option<String>,
    console: Option<String>,
    webhook: Option<String>,
    dns_relay: Option<String>,
    gateway_relay: Option<String>,
    admin: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileAdvertise {
    api: Option<String>,
    hub: Option<String>,
    dns: Option<String>,
    http: Option<String>,
    https: Option<String>,
    webhook: Option<String>,
    dns_relay: Option<String>,
    gateway_relay: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileDns {
    upstreams: Vec<String>,
    recursion: Vec<String>,
    clients: BTreeMap<String, Standing>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileGateway {
    clients: BTreeMap<String, Standing>,
    addresses: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileAgent {
    cluster: Option<String>,
    token_file: Option<PathBuf>,
}

impl File {
    pub(super) fn check(self) -> anyhow::Result<Config> {
        Ok(Config {
            apex: domain("apex", self.apex.unwrap_or_else(|| "atoll.internal".into()))?,
            default_set: label("defaultSet", self.default_set.unwrap_or_else(|| "prod".into()))?,
            data_dir: self.data_dir,
            kubeconfig: self.kubeconfig,
            embedded: self.embedded.map(|said| yes_or_no("embedded", &said)).transpose()?,
            hub: self.hub.map(|hub| host_port("hub", hub)).transpose()?,
            site: self.site.map(|site| domain("site", site)).transpose()?,
            standing: self.standing,
            listen: self.listen.check()?,
            advertise: self.advertise.check()?,
            dns: self.dns.check()?,
            gateway: self.gateway.check()?,
            agent: self.agent.check()?,
        })
    }
}

impl FileListen {
    fn check(self) -> anyhow::Result<Listens> {
        Ok(Listens {
            api: listen("listen.api", self.api, 6443)?,
            hub: listen("listen.hub", self.hub, 7443)?,
            dns: listen("listen.dns", self.dns, 5353)?,
            http: listen("listen.http", self.http, 8080)?,
            https: listen("listen.https", self.https, 8443)?,
            console: listen("listen.console", self.console, 7070)?,
            webhook: self.webhook.map(|at| listen("listen.webhook", Some(at), 0)).transpose()?,
            dns_relay: listen("listen.dnsRelay", self.dns_relay, 7453)?,
            gateway_relay: listen("listen.gatewayRelay", self.gateway_relay, 7454)?,
            admin: listen("listen.admin", self.admin, 7071)?,
        })
    }
}

impl FileAdvertise {
    fn check(self) -> anyhow::Result<Advertise> {
        let at = |key: &'static str, said: Option<String>| said.map(|at| host_port(key, at)).transpose();
        Ok(Advertise {
            api: at("advertise.api", self.api)?,
            hub: at("advertise.hub", self.hub)?,
            dns: at("advertise.dns", self.dns)?,
            http: at("advertise.http", self.http)?,
            https: at("advertise.https", self.https)?,
            webhook: at("advertise.webhook", self.webhook)?,
            dns_relay: at("advertise.dnsRelay", self.dns_relay)?,
            gateway_relay: at("advertise.gatewayRelay", self.gateway_relay)?,
        })
    }
}

impl FileDns {
    fn check(self) -> anyhow::Result<Dns> {
        let upstream = |said: String| -> anyhow::Result<SocketAddr> {
            said.parse().map_err(|_| anyhow!("dns.upstreams: `{said}` is not address:port, such as 9.9.9.9:53"))
        };
        let range = |said: String| range("dns.recursion", &said);
        Ok(Dns {
            upstreams: self.upstreams.into_iter().map(upstream).collect::<Result<_, _>>()?,
            recursion: self.recursion.into_iter().map(range).collect::<Result<_, _>>()?,
            clients: clients("dns.clients", self.clients)?,
        })
    }
}

impl FileGateway {
    fn check(self) -> anyhow::Result<Gateway> {
        let address = |said: String| -> anyhow::Result<IpAddr> {
            said.parse().map_err(|_| anyhow!("gateway.addresses: `{said}` is not an IP address, such as 192.0.2.80"))
        };
        Ok(Gateway {
            clients: clients("gateway.clients", self.clients)?,
            addresses: self.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        })
    }
}

impl FileAgent {
    fn check(self) -> anyhow::Result<Agent> {
        let cluster = self.cluster.map(|name| name.parse()).transpose().context("agent.cluster")?;
        Ok(Agent { cluster, token_file: self.token_file })
    }
}

fn listen(key: &'static str, said: Option<String>, default: u16) -> anyhow::Result<Listen> {
    let chosen = said.is_some();
    let at = match said {
        None => SocketAddr::from(([127, 0, 0, 1], default)),
        Some(said) => {
            said.parse().map_err(|_| anyhow!("{key}: `{said}` is not address:port, such as 127.0.0.1:{default}"))?
        }
    };
    Ok(Listen { key, at, chosen })
}

fn yes_or_no(key: &str, said: &str) -> anyhow::Result<bool> {
    said.parse().map_err(|_| anyhow!("{key}: `{said}` is neither true nor false"))
}

fn host_port(key: &str, said: String) -> anyhow::Result<String> {
    match host_and_port(&said) {
        Some((_, 1..)) => Ok(said),
        _ => bail!("{key}: `{said}` is not host:port, such as hub.example.com:7443"),
    }
}

fn label(key: &str, said: String) -> anyhow::Result<String> {
    if !atoll_api::names::is_label(&said) {
        bail!("{key}: `{said}` is not a name: lower-case letters, digits and `-`, at most 63");
    }
    Ok(said)
}

fn domain(key: &str, said: String) -> anyhow::Result<String> {
    let name = said.trim_end_matches('.').to_ascii_lowercase();
    if name.is_empty() || name.len() > 253 || !name.split('.').all(atoll_api::names::is_label) {
        bail!("{key}: `{said}` is not a domain name, such as atoll.internal");
    }
    Ok(name)
}

fn range(key: &str, said: &str) -> anyhow::Result<IpNet> {
    let parsed = said.parse().or_else(|_| said.parse::<IpAddr>().map(IpNet::from));
    parsed.map_err(|_| anyhow!("{key}: `{said}` is not an address range, such as 10.0.0.0/8"))
}

fn clients(key: &str, said: BTreeMap<String, Standing>) -> anyhow::Result<Clients> {
    said.into_iter().map(|(net, standing)| Ok((range(key, &net)?, standing))).collect()
}
