//! HAProxy by its runtime API: servers (weights, drain, health), maps and certificates of frontends and backends that its configuration has. What it
//! can't do while it runs (new frontends, binds, backends, whatever isn't a host name in a map) is refused by field.
//!
//! In: the desired state. Out: commands over its stats socket, and what there is. Its state is read at each push, so one that began anew is told
//! everything. Source: HAProxy, "Management Guide", §9.3.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_api::provider::{Answer, Certificate, Frontend, Health, Owner, Push, Reached, Refused};
use atoll_reach::{BoxStream, Connect, host_and_port};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{Drive, Links, Settings};

pub(super) const DRIVER: &str = "haproxy";

/// One command and its answer.
const COMMAND_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

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
    /// HTTP, HTTPS or TCP.
    protocol: String,
    /// The file of its map of host names to backends.
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
            "HTTP" | "HTTPS" => frontend.map.is_some(),
            "TCP" => frontend.backend.is_some(),
            _ => return Err(format!("frontends: port {port}: `{protocol}` is none of HTTP, HTTPS and TCP")),
        };
        if !fits {
            return Err(format!("frontends: port {port}: HTTP and HTTPS have a map, TCP a backend"));
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
        let has = plan::servers(&self.ask("show servers state").await?);
        let stat = self.ask("show stat").await?;
        let (known, busy) = backends(&stat);
        self.certificates(push, &mut answer.refused).await?;
        let mut maps: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for frontend in self.told.frontends.iter().filter_map(|f| f.map.as_deref()) {
            maps.entry(frontend).or_default();
        }
        let mut used: BTreeMap<String, &str> = BTreeMap::new();
        for frontend in &push.frontends {
            let Some(own) = self.frontend(frontend, &mut answer.refused) else { continue };
            for route in &frontend.routes {
                let target = own.backend.clone().unwrap_or_else(|| route.backend.clone());
                if !known.contains(&target) {
                    let message = format!(
                        "HAProxy's configuration has no backend `{target}`, and none can be made while it runs: add it there"
                    );
                    let field = format!("{}.backendRefs", route.field);
                    answer.refused.push(Refused { owner: route.owner.clone(), field, message });
                    continue;
                }
                let entries = own.map.as_deref().map(|map| (map, hosts(route, &mut answer.refused)));
                match entries {
                    Some((_, None)) => continue,
                    Some((map, Some(hosts))) => {
                        let entries = maps.entry(map).or_default();
                        for host in hosts {
                            entries.entry(host).or_insert_with(|| target.clone());
                        }
                    }
                    None => {}
                }
                used.insert(target, route.backend.as_str());
            }
            self.reached(&frontend.owner, &mut answer.addresses);
        }
        for (target, backend) in &used {
            let wanted =
                push.backends.iter().find(|b| b.name == *backend).map(|b| b.servers.as_slice()).unwrap_or_default();
            let none = BTreeMap::new();
            let said = plan::commands(
                target,
                wanted,
                has.get(target).unwrap_or(&none),
                self.told.checks,
                &busy.get(target).cloned().unwrap_or_default(),
            );
            let owner = push.backends.iter().find(|b| b.name == *backend).map(|b| (b.owner.clone(), b.field.clone()));
            for command in said {
                let heard = self.ask(&command).await?;
                if let (Some(why), Some((owner, field))) = (failed(&command, &heard), &owner) {
                    answer.refused.push(Refused { owner: owner.clone(), field: field.clone(), message: why });
                }
            }
        }
        // Who leads to a backend no more is drained there, too.
        for (target, servers) in has.iter().filter(|(target, _)| !used.contains_key(*target)) {
            for command in
                plan::commands(target, &[], servers, self.told.checks, &busy.get(target).cloned().unwrap_or_default())
            {
                self.ask(&command).await?;
            }
        }
        for (file, wanted) in &maps {
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

    /// HAProxy's own frontend for one that is wanted; what it can't do is refused.
    fn frontend(&self, wanted: &Frontend, refused: &mut Vec<Refused>) -> Option<&ToldFrontend> {
        let mut refuse = |field: String, message: String| {
            refused.push(Refused { owner: wanted.owner.clone(), field, message });
        };
        let found = self.told.frontends.iter().find(|f| f.port == wanted.port && f.protocol == wanted.protocol);
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

    /// Certificates in the place of those that it has; each once for a process.
    async fn certificates(&mut self, push: &Push, refused: &mut Vec<Refused>) -> io::Result<()> {
        if push.certificates.is_empty() {
            return Ok(());
        }
        let held = self.ask("show ssl cert").await?;
        let held: BTreeSet<&str> = held.lines().map(|line| line.trim_start_matches('*').trim()).collect();
        for certificate in &push.certificates {
            let file = file(&self.told.certificates, certificate);
            let mut refuse = |message: String| {
                refused.push(Refused { owner: certificate.owner.clone(), field: certificate.field.clone(), message });
            };
            if !held.contains(file.as_str()) {
                refuse(format!(
                    "HAProxy has loaded no certificate `{file}`: put one there that its frontend names, which is replaced"
                ));
                continue;
            }
            let pem = format!("{}\n{}", certificate.chain.trim(), certificate.key.trim());
            let mark: [u8; 32] = Sha256::digest(pem.as_bytes()).into();
            if self.given.get(&file) == Some(&mark) {
                continue;
            }
            // An empty line ends the payload.
            let pem: String =
                pem.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect();
            let set = self.ask(&format!("set ssl cert {file} <<\n{pem}")).await?;
            let done = if set.contains("Transaction created") || set.contains("Transaction updated") {
                self.ask(&format!("commit ssl cert {file}")).await?
            } else {
                set
            };
            if done.contains("Success!") {
                self.given.insert(file, mark);
            } else {
                let _ = self.ask(&format!("abort ssl cert {file}")).await?;
                refuse(format!("HAProxy does not take it: {}", done.trim().replace('\n', " ")));
            }
        }
        Ok(())
    }

    async fn health(&self, push: &Push, used: &BTreeMap<String, &str>) -> io::Result<Vec<Health>> {
        let has = plan::servers(&self.ask("show servers state").await?);
        let mut health = Vec::new();
        for (target, backend) in used {
            let servers = push.backends.iter().filter(|b| b.name == *backend).flat_map(|b| &b.servers);
            for server in servers {
                let found = has.get(target).and_then(|servers| servers.get(&plan::name(server)));
                let healthy = found.is_some_and(|found| found.up && !found.maint);
                let reason = if found.is_none() { "HAProxy has no such server" } else { "" };
                let at = std::net::SocketAddr::new(server.address, server.port).to_string();
                health.push(Health { backend: target.clone(), server: at, healthy, reason: reason.to_owned() });
            }
        }
        Ok(health)
    }

    /// Says one command and hears its answer.
    async fn ask(&self, command: &str) -> io::Result<String> {
        let asked = async {
            let mut stream: BoxStream = match host_and_port(&self.told.socket) {
                Some((host, port)) if !self.told.socket.starts_with('/') => self.connect.connect(host, port).await?,
                _ => self.connect.unix(&PathBuf::from(&self.told.socket)).await?,
            };
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut heard = Vec::new();
            (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut heard).await?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&heard).into_owned())
        };
        let heard: String =
            timeout(COMMAND_MAX, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        if heard.contains("Permission denied") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket needs `level admin`"));
        }
        Ok(heard)
    }
}

fn file(directory: &str, certificate: &Certificate) -> String {
    format!("{}/{}.pem", directory.trim_end_matches('/'), certificate.name.replace('/', "_"))
}

/// The backends that there are, and the servers with sessions.
fn backends(stat: &str) -> (BTreeSet<String>, BTreeMap<String, BTreeSet<String>>) {
    let (mut known, mut busy) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for line in stat.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').collect();
        let &[proxy, server, _, _, sessions, ..] = fields.as_slice() else { continue };
        match server {
            "BACKEND" => drop(known.insert(proxy.to_owned())),
            "FRONTEND" => {}
            _ if sessions != "0" => drop(busy.entry(proxy.to_owned()).or_default().insert(server.to_owned())),
            _ => {}
        }
    }
    (known, busy)
}

/// Why a command did nothing; it is heard in words only.
fn failed(command: &str, heard: &str) -> Option<String> {
    let heard = heard.trim();
    // One with connections is deleted later.
    let fine = heard.is_empty()
        || heard.contains("New server registered")
        || heard.contains("Server deleted")
        || command.starts_with("del server");
    (!fine).then(|| format!("HAProxy answers `{command}` with: {}", heard.replace('\n', " ")))
}

/// The host names of a rule, if it asks for nothing but these.
fn hosts(route: &atoll_api::provider::Route, refused: &mut Vec<Refused>) -> Option<Vec<String>> {
    let before = refused.len();
    let mut refuse = |field: String, message: &str| {
        refused.push(Refused { owner: route.owner.clone(), field, message: message.to_owned() });
    };
    for (at, one) in route.matches.iter().enumerate() {
        for (name, value) in one.as_object().into_iter().flatten() {
            let whole = name == "path"
                && value["value"] == "/"
                && value["type"].as_str().unwrap_or("PathPrefix") == "PathPrefix";
            if !whole {
                refuse(
                    format!("{}.matches[{at}].{name}", route.field),
                    "HAProxy's map knows host names alone: leave it out, or serve the route by Atoll",
                );
            }
        }
    }
    if !route.filters.is_empty() {
        refuse(format!("{}.filters", route.field), "filters can't be made while HAProxy runs");
    }
    for name in route.settings.keys() {
        refuse(format!("{}.{name}", route.field), "it can't be set while HAProxy runs");
    }
    if route.hostnames.is_empty() {
        refuse("spec.hostnames".to_owned(), "HAProxy's map needs host names");
    }
    for host in route.hostnames.iter().filter(|host| host.starts_with('*')) {
        refuse("spec.hostnames".to_owned(), &format!("`{host}`: HAProxy's map has whole names only"));
    }
    (refused.len() == before).then(|| route.hostnames.iter().map(|host| host.to_ascii_lowercase()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_map_cannot_say_is_refused_by_field() {
        for (case, route, fields) in [
            ("plain", json!({"hostnames": ["A.example"]}), ""),
            ("root", json!({"hostnames": ["a"], "matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}), ""),
            (
                "path",
                json!({"hostnames": ["a"], "matches": [{"path": {"value": "/x"}}]}),
                "spec.rules[0].matches[0].path",
            ),
            ("header", json!({"hostnames": ["a"], "matches": [{"headers": []}]}), "spec.rules[0].matches[0].headers"),
            ("filter", json!({"hostnames": ["a"], "filters": [{}]}), "spec.rules[0].filters"),
            ("timeouts", json!({"hostnames": ["a"], "settings": {"timeouts": {}}}), "spec.rules[0].timeouts"),
            ("no host", json!({}), "spec.hostnames"),
            ("wildcard", json!({"hostnames": ["*.a"]}), "spec.hostnames"),
        ] {
            let mut route = route;
            route["owner"] = json!({"kind": "HTTPRoute", "namespace": "shop", "name": "web"});
            (route["field"], route["backend"]) = (json!("spec.rules[0]"), json!("b"));
            let mut refused = Vec::new();
            let hosts = hosts(&serde_json::from_value(route).unwrap(), &mut refused);
            let said: Vec<&str> = refused.iter().map(|r| r.field.as_str()).collect();
            assert_eq!(said.join(" "), fields, "{case}");
            assert_eq!(hosts.is_some(), fields.is_empty(), "{case}");
        }
    }

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
