//! What the file says to DNS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use atoll_api::topology::Standing;
use atoll_dns::transport::TRANSPORTS;
use atoll_dns::{Caching, Limits, Rate, Rebinding, View};
use hickory_proto::rr::Name;
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::values::{clients, domain, label, range};
use crate::config::{Dns, Pair};
use crate::taps::Looking;

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
pub(super) struct FileDns {
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

impl FileDns {
    pub(super) fn check(self) -> anyhow::Result<Dns> {
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
