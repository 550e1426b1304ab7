//! What the file says to the gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use atoll_api::topology::Standing;
use atoll_gateway::{
    ACCESS_FIELDS, AccessLog, Limits, NameSettings, NamespaceLimits, ProviderSettings, TracesTo, Trusted,
};
use atoll_reach::host_and_port;
use ipnet::IpNet;
use serde::Deserialize;

use super::acme::FileAcme;
use crate::config::Gateway;
use crate::config::values::{clients, domain, range, yes_or_no};

/// Who would wait longer waits for nobody.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);

/// Of DNS servers for which none is written.
const DNS_PORT: u16 = 53;

/// No chain of proxies is longer.
const HOPS_MAX: usize = 16;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct FileGateway {
    clients: BTreeMap<String, Standing>,
    addresses: Vec<String>,
    service: Option<String>,
    http3: Option<String>,
    classes: Vec<String>,
    limits: FileLimits,
    trusted_proxies: FileTrusted,
    proxy_protocol: Vec<String>,
    access_log: Option<FileAccessLog>,
    metrics: FileMetrics,
    traces: Option<FileTraces>,
    providers: Vec<FileProvider>,
    ingress_classes: Vec<String>,
    ingress_default_certificate: Option<String>,
    ingress_tcp_services: Option<String>,
    ingress_udp_services: Option<String>,
    handover: Option<PathBuf>,
    seal_key_file: Option<PathBuf>,
    acme: Option<FileAcme>,
    names: FileNames,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileAccessLog {
    path: String,
    #[serde(default)]
    fields: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProvider {
    name: String,
    driver: String,
    classes: Vec<String>,
    #[serde(default)]
    settings: serde_json::Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileMetrics {
    per_route: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileTraces {
    collector: String,
    #[serde(default = "a_hundredth")]
    sample: f64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileNames {
    servers: Vec<String>,
    allow: Vec<String>,
    deny: Vec<String>,
}

fn a_hundredth() -> f64 {
    0.01
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileTrusted {
    cidrs: Vec<String>,
    hops: usize,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileLimits {
    connections: Option<usize>,
    client_connections: Option<usize>,
    head_seconds: Option<u64>,
    body_seconds: Option<u64>,
    write_seconds: Option<u64>,
    idle_seconds: Option<u64>,
    drain_seconds: Option<u64>,
    namespace_routes: Option<usize>,
    #[serde(rename = "namespaceRegexKiB")]
    namespace_regex_kib: Option<usize>,
    namespace_certificates: Option<usize>,
}

impl FileGateway {
    pub(super) fn check(self) -> anyhow::Result<Gateway> {
        let address = |said: String| range("gateway.addresses", &said);
        let service = self.service.map_or(Ok(false), |said| yes_or_no("gateway.service", &said))?;
        if service && !self.addresses.is_empty() {
            bail!("gateway.service: `true` beside gateway.addresses: a Gateway has addresses of the one or the other");
        }
        Ok(Gateway {
            clients: clients("gateway.clients", self.clients)?,
            addresses: self.addresses.into_iter().map(address).collect::<Result<_, _>>()?,
            service,
            http3: self.http3.map_or(Ok(true), |said| yes_or_no("gateway.http3", &said))?,
            classes: self.classes.into_iter().map(class).collect::<Result<_, _>>()?,
            limits: self.limits.check()?,
            trusted: self.trusted_proxies.check()?,
            proxies: self
                .proxy_protocol
                .into_iter()
                .map(|said| range("gateway.proxyProtocol", &said))
                .collect::<Result<_, _>>()?,
            access_log: self.access_log.map(FileAccessLog::check).transpose()?,
            count_routes: self.metrics.per_route,
            traces: self.traces.map(FileTraces::check).transpose()?,
            providers: providers(self.providers)?,
            ingress_classes: self.ingress_classes,
            default_certificate: self
                .ingress_default_certificate
                .map(|said| named("gateway.ingressDefaultCertificate", &said, "Secret"))
                .transpose()?,
            ingress_services: [
                ("gateway.ingressTcpServices", self.ingress_tcp_services),
                ("gateway.ingressUdpServices", self.ingress_udp_services),
            ]
            .map(|(key, said)| said.map(|said| named(key, &said, "ConfigMap")).transpose())
            .into_iter()
            .collect::<anyhow::Result<Vec<_>>>()?
            .try_into()
            .unwrap_or_default(),
            handover: self.handover,
            seal_key: self.seal_key_file,
            acme: self.acme.map(FileAcme::check).transpose()?,
            names: self.names.check()?,
        })
    }
}

/// Each class belongs to one.
fn providers(said: Vec<FileProvider>) -> anyhow::Result<Vec<ProviderSettings>> {
    let mut all: Vec<ProviderSettings> = Vec::new();
    for FileProvider { name, driver, classes, settings } in said {
        let at = format!("gateway.providers: `{name}`");
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let label = |word: &str| (1..=49).contains(&word.len()) && word.bytes().all(fits);
        if !label(&name) || all.iter().any(|other| other.name == name) {
            bail!("{at}: a name of its own, letters, digits and `-`, at most 49");
        }
        if classes.is_empty() {
            bail!("{at}: classes: name the GatewayClasses that it serves");
        }
        if let Some(taken) =
            classes.iter().find(|c| *c == "gateway" || all.iter().any(|other| other.classes.contains(c)))
        {
            bail!("{at}: classes: `{taken}` is served by another");
        }
        let provider = ProviderSettings { name, driver, classes, settings };
        provider.check().map_err(|why| anyhow::anyhow!("{at}: {why}"))?;
        all.push(provider);
    }
    Ok(all)
}

impl FileAccessLog {
    fn check(self) -> anyhow::Result<AccessLog> {
        if self.path.is_empty() {
            bail!("gateway.accessLog.path: write a file, or `-` for stdout");
        }
        if let Some(unknown) = self.fields.iter().find(|field| !ACCESS_FIELDS.contains(&field.as_str())) {
            bail!("gateway.accessLog.fields: `{unknown}` is none of {}", ACCESS_FIELDS.join(", "));
        }
        Ok(AccessLog { path: self.path.into(), fields: self.fields })
    }
}

impl FileTraces {
    fn check(self) -> anyhow::Result<TracesTo> {
        if host_and_port(&self.collector).is_none() {
            bail!("gateway.traces.collector: `{}` is no host:port", self.collector);
        }
        if !(0.0..=1.0).contains(&self.sample) {
            bail!("gateway.traces.sample: `{}` is not between 0 and 1", self.sample);
        }
        Ok(TracesTo { collector: self.collector, sample: self.sample })
    }
}

/// The name of a GatewayClass.
fn class(said: String) -> anyhow::Result<String> {
    domain("gateway.classes", said)
}

/// `namespace/name`.
pub(super) fn named(key: &str, said: &str, kind: &str) -> anyhow::Result<(String, String)> {
    match said.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => bail!("{key}: `{said}` is not NAMESPACE/NAME of a {kind}"),
    }
}

impl FileTrusted {
    fn check(self) -> anyhow::Result<Trusted> {
        if self.hops > 0 && !self.cidrs.is_empty() {
            bail!("gateway.trustedProxies: `cidrs` or `hops`, not both");
        }
        if self.hops > HOPS_MAX {
            bail!("gateway.trustedProxies.hops: `{}` is more than {HOPS_MAX}", self.hops);
        }
        let address = |said: String| range("gateway.trustedProxies.cidrs", &said);
        Ok(Trusted { cidrs: self.cidrs.into_iter().map(address).collect::<Result<_, _>>()?, hops: self.hops })
    }
}

impl FileNames {
    fn check(self) -> anyhow::Result<NameSettings> {
        let server = |said: String| {
            let at = said.parse().or_else(|_| said.parse::<IpAddr>().map(|ip| (ip, DNS_PORT).into()));
            at.map_err(|_| {
                anyhow!("gateway.names.servers: `{said}` is no address or address:port, such as 10.96.0.10:53")
            })
        };
        let ranges = |key: &str, said: Vec<String>| -> anyhow::Result<Vec<IpNet>> {
            said.into_iter().map(|said| range(key, &said)).collect()
        };
        Ok(NameSettings {
            servers: self.servers.into_iter().map(server).collect::<anyhow::Result<_>>()?,
            allow: ranges("gateway.names.allow", self.allow)?,
            deny: ranges("gateway.names.deny", self.deny)?,
        })
    }
}

impl FileLimits {
    fn check(self) -> anyhow::Result<Limits> {
        let default = Limits::default();
        let connections_max = self.connections.unwrap_or(default.connections_max);
        if connections_max == 0 {
            bail!("gateway.limits.connections: `0` lets nobody in: at least 1");
        }
        let time = |key: &str, said: Option<u64>, default: Duration| match said.map_or(default, Duration::from_secs) {
            time if time.is_zero() || time > PATIENCE_MAX => {
                bail!("gateway.limits.{key}: `{}` is not between 1 and {}", time.as_secs(), PATIENCE_MAX.as_secs())
            }
            time => Ok(time),
        };
        Ok(Limits {
            connections_max,
            client_connections_max: self.client_connections.unwrap_or(default.client_connections_max),
            header_timeout: time("headSeconds", self.head_seconds, default.header_timeout)?,
            body_timeout: time("bodySeconds", self.body_seconds, default.body_timeout)?,
            write_timeout: time("writeSeconds", self.write_seconds, default.write_timeout)?,
            idle_timeout: time("idleSeconds", self.idle_seconds, default.idle_timeout)?,
            drain: time("drainSeconds", self.drain_seconds, default.drain)?,
            namespace: NamespaceLimits {
                routes: self.namespace_routes.unwrap_or(default.namespace.routes),
                regex_bytes: self
                    .namespace_regex_kib
                    .map_or(default.namespace.regex_bytes, |kib| kib.saturating_mul(1024)),
                certificates: self.namespace_certificates.unwrap_or(default.namespace.certificates),
            },
            ..default
        })
    }
}
