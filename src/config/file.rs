//! The file as it is written: every key, nothing but these keys. Checked here, once.

mod gateway;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use atoll_api::topology::Standing;
use atoll_dns::transport::TRANSPORTS;
use atoll_dns::{Caching, Limits, Rate, Rebinding, View};
use atoll_reach::host_and_port;
use hickory_proto::rr::Name;
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::taps::Looking;

use gateway::FileGateway;

use super::agent::FileAgent;
use super::{Advertise, Clients, Config, Dns, Listen, Listens, Pair};

/// A tick of the limiter is 16 µs.
const RATE_MAX: u32 = 60_000;
const SLIP_MAX: u8 = 15;
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// More than any machine has cores.
const THREADS_MAX: usize = 1024;
const WIRE_MEGABYTES_MAX: usize = 1 << 20;
/// RFC 8767 §5: a maximum stale timer of one to three days.
const STALE_MAX: Duration = Duration::from_secs(3 * 86_400);

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

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileDns {
    threads: Option<usize>,
    /// What `cache.wireMegabytes` was called.
    cache_megabytes: Option<IgnoredAny>,
    upstreams: Vec<String>,
    recursion: Vec<String>,
    clients: BTreeMap<String, Standing>,
    allow: Vec<String>,
    proxies: Vec<String>,
    ecs: Vec<String>,
    cidr_map: Option<PathBuf>,
    mmdb: Option<PathBuf>,
    views: Vec<FileView>,
    tls: Option<FilePair>,
    cookie_secret_file: Option<PathBuf>,
    rate_limit: FileRate,
    limits: FileLimits,
    cache: FileCache,
    rebinding: FileRebinding,
    query_log: Option<FileQueryLog>,
    dnstap: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileQueryLog {
    sample: u32,
    path: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileView {
    name: String,
    #[serde(rename = "match")]
    matches: FileMatch,
    cluster_set: Option<String>,
    zones: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileMatch {
    cidrs: Vec<String>,
    tsig_keys: Vec<String>,
    listeners: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FilePair {
    cert: PathBuf,
    key: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileRate {
    replies_per_second: Option<u32>,
    slip: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileLimits {
    connections: Option<usize>,
    client_connections: Option<usize>,
    queries: Option<usize>,
    idle_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileCache {
    wire_megabytes: Option<usize>,
    forwarded_megabytes: Option<u32>,
    /// What `forwardedMegabytes` was called.
    megabytes: Option<IgnoredAny>,
    stale_max_seconds: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileRebinding {
    guard: Option<bool>,
    names: Vec<String>,
    ranges: Vec<String>,
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

impl FileDns {
    fn check(self) -> anyhow::Result<Dns> {
        let upstream = |said: String| -> anyhow::Result<SocketAddr> {
            said.parse().map_err(|_| anyhow!("dns.upstreams: `{said}` is not address:port, such as 9.9.9.9:53"))
        };
        let ranges = |key: &str, said: Vec<String>| -> anyhow::Result<Vec<IpNet>> {
            said.iter().map(|said| range(key, said)).collect()
        };
        if let Some(threads) = self.threads.filter(|threads| !(1..=THREADS_MAX).contains(threads)) {
            bail!("dns.threads: `{threads}` is not between 1 and {THREADS_MAX}");
        }
        if self.cache_megabytes.is_some() {
            bail!("dns.cacheMegabytes: it is called dns.cache.wireMegabytes now");
        }
        Ok(Dns {
            threads: self.threads,
            cache_bytes: self.cache.wire_bytes()?,
            upstreams: self.upstreams.into_iter().map(upstream).collect::<Result<_, _>>()?,
            recursion: ranges("dns.recursion", self.recursion)?,
            clients: clients("dns.clients", self.clients)?,
            allow: ranges("dns.allow", self.allow)?,
            proxies: ranges("dns.proxies", self.proxies)?,
            ecs: ranges("dns.ecs", self.ecs)?,
            cidr_map: self.cidr_map,
            mmdb: self.mmdb,
            views: self.views.into_iter().map(FileView::check).collect::<Result<_, _>>()?,
            tls: self.tls.map(|pair| Pair { cert: pair.cert, key: pair.key }),
            cookie_secret_file: self.cookie_secret_file,
            rate: self.rate_limit.check()?,
            limits: self.limits.check()?,
            caching: self.cache.check()?,
            rebinding: self.rebinding.check()?,
            looking: Looking {
                log: self.query_log.map(FileQueryLog::check).transpose()?,
                dnstap: self.dnstap.map(|said| unix(&said)).transpose()?,
            },
        })
    }
}

impl FileCache {
    /// For answers that are kept as octets.
    fn wire_bytes(&self) -> anyhow::Result<Option<usize>> {
        match self.wire_megabytes {
            Some(megabytes) if !(1..=WIRE_MEGABYTES_MAX).contains(&megabytes) => {
                Err(anyhow!("dns.cache.wireMegabytes: `{megabytes}` is not between 1 and {WIRE_MEGABYTES_MAX}"))
            }
            said => Ok(said.map(|megabytes| megabytes << 20)),
        }
    }

    fn check(self) -> anyhow::Result<Caching> {
        if self.megabytes.is_some() {
            bail!("dns.cache.megabytes: it is called dns.cache.forwardedMegabytes now");
        }
        let default = Caching::default();
        let bytes_max = match self.forwarded_megabytes {
            Some(0) => return Err(anyhow!("dns.cache.forwardedMegabytes: `0` is no room: at least 1")),
            Some(megabytes) => u64::from(megabytes) * 1024 * 1024,
            None => default.bytes_max,
        };
        let stale_max = self.stale_max_seconds.map_or(default.stale_max, |s| Duration::from_secs(s.into()));
        if stale_max > STALE_MAX {
            return Err(anyhow!("dns.cache.staleMaxSeconds: `{}` is more than three days", stale_max.as_secs()));
        }
        Ok(Caching { bytes_max, stale_max })
    }
}

impl FileRebinding {
    fn check(self) -> anyhow::Result<Rebinding> {
        let name = |said: String| domain("dns.rebinding.names", said);
        let range = |said: String| range("dns.rebinding.ranges", &said);
        Ok(Rebinding {
            guard: self.guard.unwrap_or(true),
            names: self.names.into_iter().map(name).collect::<Result<_, _>>()?,
            ranges: self.ranges.into_iter().map(range).collect::<Result<_, _>>()?,
        })
    }
}

impl FileView {
    fn check(self) -> anyhow::Result<View> {
        if self.name.is_empty() {
            bail!("dns.views: a view needs a `name`");
        }
        let key = format!("dns.views: view `{}`", self.name);
        let names = |key: String, said: Vec<String>| -> anyhow::Result<Vec<Name>> {
            said.into_iter()
                .map(|said| Ok(Name::from_ascii(domain(&key, said)?)?.append_domain(&Name::root())?))
                .collect()
        };
        let known = |listener: &String| TRANSPORTS.iter().any(|t| t.name == listener);
        if let Some(strange) = self.matches.listeners.iter().find(|l| !known(l)) {
            bail!(
                "{key}: listener `{strange}` is none of {}",
                TRANSPORTS.iter().map(|t| t.name).collect::<Vec<_>>().join(", ")
            );
        }
        Ok(View {
            cidrs: self.matches.cidrs.iter().map(|said| range(&key, said)).collect::<Result<_, _>>()?,
            tsig_keys: names(format!("{key}, tsigKeys"), self.matches.tsig_keys)?,
            listeners: self.matches.listeners,
            cluster_set: self.cluster_set.map(|set| label(&key, set)).transpose()?,
            zones: names(format!("{key}, zones"), self.zones)?,
            name: self.name,
        })
    }
}

impl FileQueryLog {
    fn check(self) -> anyhow::Result<(u32, Option<PathBuf>)> {
        if self.sample == 0 {
            bail!("dns.queryLog.sample: 0 is no share; 1 logs every query, 100 one in a hundred");
        }
        Ok((self.sample, self.path))
    }
}

impl FileRate {
    fn check(self) -> anyhow::Result<Rate> {
        let default = Rate::default();
        let rate = Rate {
            per_second: self.replies_per_second.unwrap_or(default.per_second),
            slip: self.slip.unwrap_or(default.slip),
        };
        if rate.per_second > RATE_MAX {
            bail!("dns.rateLimit.repliesPerSecond: {} is more than {RATE_MAX}; 0 means no limit", rate.per_second);
        }
        if rate.slip > SLIP_MAX {
            bail!("dns.rateLimit.slip: {} is more than {SLIP_MAX}", rate.slip);
        }
        Ok(rate)
    }
}

impl FileLimits {
    fn check(self) -> anyhow::Result<Limits> {
        let default = Limits::default();
        let limits = Limits {
            connections: self.connections.unwrap_or(default.connections),
            client_connections: self.client_connections.unwrap_or(default.client_connections),
            queries: self.queries.unwrap_or(default.queries),
            idle: self.idle_seconds.map_or(default.idle, Duration::from_secs),
            ..default
        };
        let least = limits.connections.min(limits.client_connections).min(limits.queries);
        if least == 0 || limits.idle.is_zero() || limits.idle > IDLE_MAX {
            bail!("dns.limits: every limit is at least 1, and idleSeconds at most {}", IDLE_MAX.as_secs());
        }
        Ok(limits)
    }
}

fn unix(said: &str) -> anyhow::Result<PathBuf> {
    let path = said.strip_prefix("unix:").map(PathBuf::from).filter(|path| path.is_absolute());
    path.ok_or_else(|| anyhow!("dns.dnstap: `{said}` is not unix:/PATH, such as unix:/run/dnstap.sock"))
}

/// An address that there is only if the file names it.
fn chosen(key: &'static str, said: Option<String>, example: u16) -> anyhow::Result<Option<Listen>> {
    said.map(|at| listen(key, Some(at), example)).transpose()
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

/// A domain name, in lower case and without the last dot.
pub(super) fn domain(key: &str, said: String) -> anyhow::Result<String> {
    let name = atoll_api::names::domain(&said);
    name.ok_or_else(|| anyhow!("{key}: `{said}` is not a domain name, such as atoll.internal"))
}

fn range(key: &str, said: &str) -> anyhow::Result<IpNet> {
    let parsed = said.parse().or_else(|_| said.parse::<IpAddr>().map(IpNet::from));
    parsed.map_err(|_| anyhow!("{key}: `{said}` is not an address range, such as 10.0.0.0/8"))
}

fn clients(key: &str, said: BTreeMap<String, Standing>) -> anyhow::Result<Clients> {
    said.into_iter().map(|(net, standing)| Ok((range(key, &net)?, standing))).collect()
}
