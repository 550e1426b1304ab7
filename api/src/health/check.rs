//! Health checks as TrafficPolicies ask for them: what is probed, where, how. The hub and every DNS server compute the same list.
//!
//! In: the topology. Out: [`Target`]s, each once for each policy; targets with the same [`Target::key`] are one probe. At most
//! [`TARGETS_MAX`] keys. Never probes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::duration;
use crate::kinds::{AnswerKind, CheckProtocol, HealthCheck};
use crate::names::{ClusterName, ServiceName};
use crate::topology::{Endpoints, Site, Topology, TrafficFacts};

/// Targets probed by one DNS server, at most.
pub const TARGETS_MAX: usize = 4096;
const INTERVAL: Duration = Duration::from_secs(5);
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A health check, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is spoken.
    pub protocol: CheckProtocol,
    /// Where, if written.
    pub port: Option<u16>,
    /// What is asked for over HTTP.
    pub path: String,
    /// Which host, if written.
    pub host: Option<String>,
    /// Which gRPC service; empty: the server.
    pub service: String,
    /// What means well; empty: 200 to 399.
    pub expected_status: Vec<u16>,
    /// Between two probes.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

impl Check {
    /// As written in a policy.
    ///
    /// # Errors
    /// When a duration is none or out of its bounds, or a path or host could not stand in a request. The writer is at fault.
    pub fn parse(spec: &HealthCheck, hosts: &[String]) -> Result<Self, String> {
        let time = |field: &str, text: &Option<String>, default| match text {
            None => Ok(default),
            Some(text) => duration::parse(text).map_err(|e| format!("healthCheck.{field}: {e}")),
        };
        let interval = time("interval", &spec.interval, INTERVAL)?;
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Err("healthCheck.interval: write 1s to 5m".into());
        }
        let timeout = time("timeout", &spec.timeout, TIMEOUT.min(interval))?;
        if timeout.is_zero() || timeout > interval {
            return Err("healthCheck.timeout: write more than 0 and at most the interval".into());
        }
        let path = spec.path.clone().unwrap_or_else(|| "/".into());
        // Both go into a request as they are: a line break would make it another one.
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("healthCheck.path: `{path}` does not begin with `/` or holds what no path may"));
        }
        let first = hosts.iter().find(|h| !h.starts_with('*')).cloned();
        let host = spec.host.clone().or(first);
        if let Some(bad) =
            host.as_ref().filter(|h| !h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)))
        {
            return Err(format!("healthCheck.host: `{bad}` is no host"));
        }
        if let Some(bad) = spec.expected_status.iter().find(|s| !(100..600).contains(*s)) {
            return Err(format!("healthCheck.expectedStatus: {bad} is no status"));
        }
        Ok(Self {
            protocol: spec.protocol,
            port: spec.port,
            path,
            host,
            service: spec.service.clone().unwrap_or_default(),
            expected_status: spec.expected_status.clone(),
            interval,
            timeout,
        })
    }

    /// Whether an HTTP status means well.
    pub fn expects(&self, status: u16) -> bool {
        if self.expected_status.is_empty() {
            (200..400).contains(&status)
        } else {
            self.expected_status.contains(&status)
        }
    }

    fn default_port(&self) -> u16 {
        if self.protocol == CheckProtocol::HTTP { 80 } else { 443 }
    }
}

/// One thing that is probed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The member that it is in; `None`: it is dialed as anybody dials it.
    pub cluster: Option<ClusterName>,
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub check: Arc<Check>,
    /// What counts as one when it is asked whether almost everything is down: a member, else an address.
    pub group: String,
}

impl Target {
    /// What a policy takes out: `cluster/address`, or an address.
    pub fn place(&self) -> String {
        place(self.cluster.as_ref(), self.address.ip())
    }

    /// The same for the same probe, whichever policy asks for it.
    pub fn key(&self) -> String {
        let c = &self.check;
        let (host, place) = (c.host.as_deref().unwrap_or("-"), self.cluster.as_ref().map_or("-", ClusterName::as_str));
        let status: Vec<String> = c.expected_status.iter().map(u16::to_string).collect();
        format!("{:?} {place} {} {host} {} {} {}", c.protocol, self.address, c.path, c.service, status.join(","))
    }
}

/// What a policy takes out by `cluster` and `ip`, as [`Target::place`] spells it.
pub(super) fn place(cluster: Option<&ClusterName>, ip: IpAddr) -> String {
    cluster.map_or_else(|| ip.to_string(), |c| format!("{c}/{ip}"))
}

/// The targets of every policy that has a health check, in order of the policies' names.
pub fn targets(topology: &Topology) -> Vec<(ServiceName, Target)> {
    let mut found = Vec::new();
    let mut keys = BTreeSet::new();
    for (name, facts) in &topology.traffic {
        let Some(Ok(check)) = facts.health_check.as_ref().map(|c| Check::parse(c, &facts.hosts)) else { continue };
        let check = Arc::new(check);
        for target in of_policy(topology, name, facts, &check) {
            if keys.len() >= TARGETS_MAX {
                return found;
            }
            keys.insert(target.key());
            found.push((name.clone(), target));
        }
    }
    found
}

fn of_policy(topology: &Topology, name: &ServiceName, facts: &TrafficFacts, check: &Arc<Check>) -> Vec<Target> {
    let service = match (&facts.service, &facts.backend, facts.answer) {
        (Some(service), ..) => Some(service),
        (None, Some(backend), Some(AnswerKind::Endpoints | AnswerKind::VirtualIP | AnswerKind::LoadBalancer)) => {
            Some(backend)
        }
        _ => None,
    };
    if facts.answer == Some(AnswerKind::Addresses) {
        let fixed = facts.addresses.iter().filter_map(|a| Some((a.address.parse().ok()?, a.cluster.as_deref())));
        return fixed.map(|(ip, cluster)| outside(ip, None, cluster, check)).collect();
    }
    let Some(service) = service else {
        let sites = topology.sites.values().filter(|s| s.kind == "gateway" && !s.silent);
        let addresses = sites.flat_map(|s| reached(s, &facts.hosts).into_iter().map(|a| (a, s.cluster.as_deref())));
        let parsed = addresses.filter_map(|(text, cluster)| {
            let whole: Option<SocketAddr> = text.parse().ok();
            let ip = whole.map(|a| a.ip()).or_else(|| text.parse().ok())?;
            Some(outside(ip, whole.map(|a| a.port()), cluster, check))
        });
        return parsed.collect();
    };
    let service = ServiceName::new(name.namespace.clone(), service.clone());
    let offered = |cluster: &ClusterName| {
        let sets = topology.services.values().filter_map(|set| set.get(&service));
        sets.into_iter().any(|s| s.clusters.iter().any(|c| c == cluster.as_str()))
    };
    let there = topology.endpoints.iter().filter(|(cluster, _)| offered(cluster));
    let there = there.filter_map(|(cluster, all)| Some((cluster, all.get(&service)?)));
    there.flat_map(|(cluster, endpoints)| in_member(cluster, endpoints, facts.answer, check)).collect()
}

/// Where anybody reaches these hosts at a gateway, each once.
fn reached<'a>(site: &'a Site, hosts: &[String]) -> BTreeSet<&'a str> {
    let lower = hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    lower.flat_map(|host| site.reached_at(&host, None)).collect()
}

/// Something that is dialed as anybody dials it; `cluster` is where it leads.
fn outside(ip: IpAddr, port: Option<u16>, cluster: Option<&str>, check: &Arc<Check>) -> Target {
    let port = check.port.or(port).unwrap_or_else(|| check.default_port());
    let group = cluster.map_or_else(|| ip.to_string(), str::to_owned);
    Target { cluster: None, address: SocketAddr::new(ip, port), check: Arc::clone(check), group }
}

fn in_member(
    cluster: &ClusterName,
    endpoints: &Endpoints,
    answer: Option<AnswerKind>,
    check: &Arc<Check>,
) -> Vec<Target> {
    if answer == Some(AnswerKind::LoadBalancer) {
        let ips = endpoints.load_balancer.iter().filter_map(|a| a.parse().ok());
        return ips.map(|ip| outside(ip, None, Some(cluster.as_str()), check)).collect();
    }
    let tcp = |protocol: &str| protocol.is_empty() || protocol == "TCP";
    let listens = endpoints.ports.iter().find(|p| tcp(&p.protocol)).map(|p| p.port);
    let port = check.port.or(listens).unwrap_or_else(|| check.default_port());
    let ready = endpoints.endpoints.iter().filter(|e| e.ready || e.failing);
    ready
        .map(|e| Target {
            cluster: Some(cluster.clone()),
            address: SocketAddr::new(e.address, port),
            check: Arc::clone(check),
            group: cluster.to_string(),
        })
        .collect()
}
