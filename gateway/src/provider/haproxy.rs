//! HAProxy by its runtime API: servers (weights, drain, health), maps and certificates of frontends and backends that its configuration has. What it
//! can't do while it runs (new frontends, binds, backends, whatever isn't a host name in a map) is refused by field.
//!
//! In: the desired state. Out: commands over its stats socket, and what there is. Its state is read at each push, so one that began anew is told
//! everything. Source: HAProxy, "Management Guide", §9.3.

mod certificates;
mod maps;
mod plan;
mod socket;
mod stat;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::provider::{Answer, Frontend, Health, Owner, Push, Reached, Refused, Route};
use atoll_reach::{Connect, host_and_port};
use serde::Deserialize;
use serde_json::Value;

use super::{Drive, Links, Settings};
use maps::Maps;
use socket::failed;
use stat::Stat;

pub(super) const DRIVER: &str = "haproxy";

/// What the configuration says of one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Told {
    /// Path of its stats socket, or host:port; of level `admin`.
    socket: String,
    /// The frontends that its own configuration has.
    frontends: Vec<ToldFrontend>,
    /// Where it keeps certificates: `DIRECTORY/NAMESPACE_NAME.pem`.
    #[serde(default = "certs")]
    certificates: String,
    /// Servers are checked as the backend's `default-server` says.
    #[serde(default)]
    checks: bool,
    /// Where it is reached, for statuses.
    #[serde(default)]
    addresses: Vec<String>,
}

fn certs() -> String {
    "/etc/haproxy/certs".to_owned()
}

/// A frontend of HAProxy's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ToldFrontend {
    port: u16,
    /// HTTP, HTTPS, TLS (passed on by server name) or TCP.
    protocol: String,
    /// The file of its map of host names, or server names, to backends.
    map: Option<String>,
    /// The backend that it sends everything to.
    backend: Option<String>,
}

/// One HAProxy.
struct Haproxy {
    told: Told,
    connect: Arc<dyn Connect>,
    /// Its process, and the certificates that were given to that.
    process: String,
    given: BTreeMap<String, [u8; 32]>,
}

/// # Errors
/// What of the configuration makes no sense.
pub(super) fn check(settings: &Value) -> Result<(), String> {
    told(settings).map(drop)
}

fn told(settings: &Value) -> Result<Told, String> {
    let told: Told = serde_json::from_value(settings.clone()).map_err(|error| error.to_string())?;
    if !told.socket.starts_with('/') && host_and_port(&told.socket).is_none() {
        return Err(format!("socket: `{}` is neither a path nor host:port", told.socket));
    }
    for frontend in &told.frontends {
        let (port, protocol) = (frontend.port, frontend.protocol.as_str());
        let fits = match protocol {
            "HTTP" | "HTTPS" | "TLS" => frontend.map.is_some(),
            "TCP" => frontend.backend.is_some(),
            _ => return Err(format!("frontends: port {port}: `{protocol}` is none of HTTP, HTTPS, TLS and TCP")),
        };
        if !fits {
            return Err(format!("frontends: port {port}: HTTP, HTTPS and TLS have a map, TCP a backend"));
        }
    }
    Ok(told)
}

/// # Errors
/// As [`check`].
pub(super) fn make(settings: &Settings, links: &Links) -> Result<Box<dyn Drive>, String> {
    let (process, given) = (String::new(), BTreeMap::new());
    Ok(Box::new(Haproxy { told: told(&settings.settings)?, connect: Arc::clone(&links.connect), process, given }))
}

#[async_trait]
impl Drive for Haproxy {
    async fn push(&mut self, push: &Push) -> Result<Answer, String> {
        self.carry_out(push).await.map_err(|error| format!("{}: {error}", self.told.socket))
    }
}

impl Haproxy {
    async fn carry_out(&mut self, push: &Push) -> io::Result<Answer> {
        let process = self.ask("show info").await?;
        let ours = |line: &&str| line.starts_with("Pid:") || line.starts_with("Start_time");
        let process: String = process.lines().filter(ours).collect();
        if self.process != process {
            tracing::info!(socket = self.told.socket, "HAProxy is told everything");
            (self.process, self.given) = (process, BTreeMap::new());
        }
        let mut answer = Answer { generation: push.generation, ..Answer::default() };
        self.certificates(push, &mut answer.refused).await?;
        let stat = Stat::read(&self.ask("show stat").await?);
        let (used, maps) = self.lead(push, &stat, &mut answer);
        self.servers(push, &used, &stat, &mut answer.refused).await?;
        for (file, wanted) in &maps.0 {
            let held = self.ask(&format!("show map {file}")).await?;
            if held.contains("Unknown map") {
                let owners: BTreeSet<&Owner> = push.frontends.iter().map(|f| &f.owner).collect();
                answer.refused.extend(owners.into_iter().map(|owner| Refused {
                    owner: owner.clone(),
                    field: "spec.listeners".to_owned(),
                    message: format!("HAProxy uses no map `{file}`: name it in the frontend, as `use_backend %[req.hdr(host),field(1,:),lower,map({file})]`"),
                }));
                continue;
            }
            for command in plan::map_commands(file, wanted, &plan::map(&held)) {
                self.ask(&command).await?;
            }
        }
        answer.health = self.health(push, &used).await?;
        Ok(answer)
    }

    /// Where frontends lead: HAProxy's backends with those of the state that stand there, and maps. What can't be is refused.
    fn lead<'a>(&'a self, push: &'a Push, stat: &Stat, answer: &mut Answer) -> (BTreeMap<String, &'a str>, Maps<'a>) {
        let (mut used, mut maps) = (BTreeMap::<String, &str>::new(), Maps::default());
        for file in self.told.frontends.iter().filter_map(|f| f.map.as_deref()) {
            maps.0.entry(file).or_default();
        }
        for frontend in &push.frontends {
            let Some(own) = self.frontend(frontend, &mut answer.refused) else { continue };
            for route in &frontend.routes {
                let target = own.backend.clone().unwrap_or_else(|| route.backend.clone());
                let mut refuse = |message: String| {
                    let (owner, field) = (route.owner.clone(), backend_field(route));
                    answer.refused.push(Refused { owner, field, message });
                };
                if !stat.backends.contains(&target) {
                    refuse(format!(
                        "HAProxy's configuration has no backend `{target}`, and none can be made while it runs: add it there"
                    ));
                    continue;
                }
                if used.get(&target).is_some_and(|held| *held != route.backend) {
                    refuse(format!(
                        "HAProxy's frontend at port {} leads to one backend, `{target}`, which an older object has",
                        frontend.port
                    ));
                    continue;
                }
                if let Some(file) = own.map.as_deref()
                    && !maps.enter(file, route, &target, &mut answer.refused)
                {
                    continue;
                }
                used.insert(target, route.backend.as_str());
            }
            self.reached(&frontend.owner, &mut answer.addresses);
        }
        (used, maps)
    }

    /// Makes the servers of each backend what they are to be, and drains those where nothing leads any more.
    async fn servers(
        &self,
        push: &Push,
        used: &BTreeMap<String, &str>,
        stat: &Stat,
        refused: &mut Vec<Refused>,
    ) -> io::Result<()> {
        let has = plan::servers(&self.ask("show servers state").await?);
        let (none, nobody) = (BTreeMap::new(), BTreeSet::new());
        let busy = |target: &String| stat.busy.get(target).unwrap_or(&nobody);
        for (target, backend) in used {
            let Some(backend) = push.backends.iter().find(|b| b.name == *backend) else { continue };
            let how = plan::How { checks: self.told.checks, h2: backend.protocol == "GRPC" };
            for command in plan::commands(target, &backend.servers, has.get(target).unwrap_or(&none), how, busy(target))
            {
                let heard = self.ask(&command).await?;
                if let Some(message) = failed(&command, &heard) {
                    refused.push(Refused { owner: backend.owner.clone(), field: backend.field.clone(), message });
                }
            }
        }
        for (target, servers) in has.iter().filter(|(target, _)| !used.contains_key(*target)) {
            for command in plan::commands(target, &[], servers, plan::How::default(), busy(target)) {
                self.ask(&command).await?;
            }
        }
        Ok(())
    }

    /// HAProxy's own frontend for one that is wanted; what it can't do is refused.
    fn frontend(&self, wanted: &Frontend, refused: &mut Vec<Refused>) -> Option<&ToldFrontend> {
        let mut refuse = |field: String, message: String| {
            refused.push(Refused { owner: wanted.owner.clone(), field, message });
        };
        let found = self.told.frontends.iter().find(|f| f.port == wanted.port && f.protocol == wanted.protocol);
        if wanted.tls_mode.as_deref().is_some_and(|mode| mode != "Passthrough") {
            let why =
                "HAProxy passes TLS on by server name and ends it for HTTPS alone: Passthrough, or protocol HTTPS";
            refuse(format!("{}.tls.mode", wanted.field), why.to_owned());
            return None;
        }
        if found.is_none() {
            let why = format!(
                "HAProxy has no frontend for {} at port {}, and none can be made while it runs: add it to its configuration and to the provider's `frontends`",
                wanted.protocol, wanted.port
            );
            refuse(format!("{}.port", wanted.field), why);
        }
        let settled = "HAProxy's configuration says that, and it can't be changed while it runs";
        let at =
            |field: &str| if wanted.owner.kind == "Service" { format!("spec.{field}") } else { wanted.field.clone() };
        if !wanted.source_ranges.is_empty() {
            // Nobody is to come in whom the field keeps out.
            refuse(at("loadBalancerSourceRanges"), settled.to_owned());
            return None;
        }
        if wanted.affinity_seconds.is_some() {
            refuse(at("sessionAffinity"), settled.to_owned());
        }
        if wanted.addresses.iter().any(|address| !self.told.addresses.contains(address)) {
            refuse(
                if wanted.owner.kind == "Service" { at("loadBalancerIP") } else { "spec.addresses".to_owned() },
                settled.to_owned(),
            );
        }
        found
    }

    fn reached(&self, owner: &Owner, addresses: &mut Vec<Reached>) {
        if !self.told.addresses.is_empty() && !addresses.iter().any(|reached| reached.owner == *owner) {
            addresses.push(Reached { owner: owner.clone(), addresses: self.told.addresses.clone() });
        }
    }

    /// How the servers do, by the names of the state.
    async fn health(&self, push: &Push, used: &BTreeMap<String, &str>) -> io::Result<Vec<Health>> {
        let stat = Stat::read(&self.ask("show stat").await?);
        let mut health = Vec::new();
        for (target, backend) in used {
            let servers = push.backends.iter().filter(|b| b.name == *backend).flat_map(|b| &b.servers);
            for server in servers {
                let seen = stat.server(target, &plan::name(server));
                let (healthy, reason) = seen.map_or((false, "HAProxy has no such server".to_owned()), |seen| {
                    (seen.healthy, seen.reason.clone())
                });
                let at = std::net::SocketAddr::new(server.address, server.port).to_string();
                health.push(Health { backend: (*backend).to_owned(), server: at, healthy, reason });
            }
        }
        Ok(health)
    }
}

/// The field that names the backend of a rule.
fn backend_field(route: &Route) -> String {
    if route.owner.kind == "Service" { route.field.clone() } else { format!("{}.backendRefs", route.field) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_said() {
        for (settings, why) in [
            (json!({"socket": "/run/h.sock", "frontends": [{"port": 80, "protocol": "HTTP", "map": "/m"}]}), ""),
            (json!({"socket": "here", "frontends": []}), "neither a path nor host:port"),
            (json!({"socket": "127.0.0.1:1", "frontends": [{"port": 80, "protocol": "HTTP"}]}), "have a map"),
            (json!({"socket": "127.0.0.1:1", "frontends": [{"port": 80, "protocol": "SCTP"}]}), "none of HTTP"),
            (json!({"socket": "127.0.0.1:1", "frontends": [], "colour": "red"}), "colour"),
        ] {
            let said = check(&settings).err().unwrap_or_default();
            assert!(if why.is_empty() { said.is_empty() } else { said.contains(why) }, "{settings}: {said}");
        }
    }
}
