//! The file as it is written: every key, nothing but these keys. Checked here, once.

mod acme;
mod dns;
mod gateway;

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::anyhow;
use atoll_api::topology::Standing;
use serde::Deserialize;

use dns::FileDns;
use gateway::FileGateway;

use super::agent::FileAgent;
use super::values::{chosen, domain, host_port, label, listen, yes_or_no};
use super::{Advertise, Config, Listens};

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
    dns_tls: Option<String>,
    dns_https: Option<String>,
    dns_quic: Option<String>,
    dns_h3: Option<String>,
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
    addresses: Vec<String>,
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
            dns_tls: chosen("listen.dnsTls", self.dns_tls, 853)?,
            dns_https: chosen("listen.dnsHttps", self.dns_https, 443)?,
            dns_quic: chosen("listen.dnsQuic", self.dns_quic, 853)?,
            dns_h3: chosen("listen.dnsH3", self.dns_h3, 443)?,
            http: listen("listen.http", self.http, 8080)?,
            https: listen("listen.https", self.https, 8443)?,
            console: listen("listen.console", self.console, 7070)?,
            webhook: chosen("listen.webhook", self.webhook, 9443)?,
            dns_relay: listen("listen.dnsRelay", self.dns_relay, 7453)?,
            gateway_relay: listen("listen.gatewayRelay", self.gateway_relay, 7454)?,
            admin: listen("listen.admin", self.admin, 7071)?,
        })
    }
}

impl FileAdvertise {
    fn check(self) -> anyhow::Result<Advertise> {
        let at = |key: &'static str, said: Option<String>| said.map(|at| host_port(key, at)).transpose();
        let address = |said: String| -> anyhow::Result<IpAddr> {
            said.parse().map_err(|_| anyhow!("advertise.addresses: `{said}` is not an IP address, such as 192.0.2.80"))
        };
        Ok(Advertise {
            api: at("advertise.api", self.api)?,
            hub: at("advertise.hub", self.hub)?,
            dns: at("advertise.dns", self.dns)?,
            http: at("advertise.http", self.http)?,
            https: at("advertise.https", self.https)?,
            webhook: at("advertise.webhook", self.webhook)?,
            dns_relay: at("advertise.dnsRelay", self.dns_relay)?,
            gateway_relay: at("advertise.gatewayRelay", self.gateway_relay)?,
            addresses: self.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
        })
    }
}
