//! What a scenario says of the server's configuration and of the topology. Pure.
//!
//! In: the lines of `config`, `member`, `service` and `fact`. Out: a [`Config`], facts by key. A new key of the configuration is one arm in [`config`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use atoll_api::topology::Standing;
use atoll_dns::{Config, View};
use hickory_proto::rr::Name;
use serde_json::{Value, json};

use crate::script::Step;
use crate::wording::absolute;

/// A line that can't be taken, and why.
type Wrong = (usize, String);

/// The configuration; `server` finds a stand-in by its name.
pub(crate) fn config(step: &Step, server: impl Fn(&str) -> Option<SocketAddr>) -> Result<Config, Wrong> {
    let mut config = Config::default();
    for (line, text) in &step.block {
        let bad = |why: String| (*line, why);
        let words: Vec<&str> = text.split_whitespace().collect();
        let (key, values) = words.split_first().expect("a line of a block has words");
        let ranges = || values.iter().map(|v| v.parse().map_err(|_| bad(format!("`{v}` is no range"))));
        match *key {
            "recursion" => config.recursion = ranges().collect::<Result<_, _>>()?,
            "upstreams" => {
                let at = |v: &&str| server(v).ok_or_else(|| bad(format!("no server `{v}`")));
                config.upstreams = values.iter().map(at).collect::<Result<_, _>>()?;
            }
            "cache" | "rebinding" => cached(&mut config, values).map_err(bad)?,
            "ecs" => config.ecs = ranges().collect::<Result<_, _>>()?,
            "proxies" => config.proxies = ranges().collect::<Result<_, _>>()?,
            "allow" => config.allow = ranges().collect::<Result<_, _>>()?,
            "limits" => limits(&mut config, values).map_err(bad)?,
            "view" => config.views.push(view(values).map_err(bad)?),
            "standing" => config.standing = standing(values).map_err(bad)?,
            "client" => {
                let (range, rest) = values.split_first().ok_or_else(|| bad("which range?".to_owned()))?;
                let range = range.parse().map_err(|_| bad(format!("`{range}` is no range")))?;
                config.clients.push((range, standing(rest).map_err(bad)?));
            }
            _ => return Err(bad(format!("no key `{key}`: add it in dns/tests/cases/setting.rs"))),
        }
    }
    Ok(config)
}

/// `stale=1h bytes=…`, `guard=off names=… ranges=…`.
fn cached(config: &mut Config, words: &[&str]) -> Result<(), String> {
    for word in words {
        let (key, value) = word.split_once('=').ok_or(format!("`{word}` is not key=value"))?;
        let all = value.split(',');
        match key {
            "stale" => config.caching.stale_max = crate::expect::duration(value)?,
            "bytes" => config.caching.bytes_max = crate::expect::number(value)? as u64,
            "guard" => config.rebinding.guard = value != "off",
            "names" => config.rebinding.names = all.map(str::to_owned).collect(),
            "ranges" => {
                let ranges = all.map(|r| r.parse().map_err(|_| format!("`{r}` is no range")));
                config.rebinding.ranges = ranges.collect::<Result<_, _>>()?;
            }
            _ => return Err(format!("no key `{key}`")),
        }
    }
    Ok(())
}

/// `connections=… client=… queries=… idle=… handshake=… rate=…`.
fn limits(config: &mut Config, words: &[&str]) -> Result<(), String> {
    for word in words {
        let (key, value) = word.split_once('=').ok_or(format!("`{word}` is not key=value"))?;
        let (number, time) = (|| crate::expect::number(value), || crate::expect::duration(value));
        match key {
            "connections" => config.limits.connections = number()?,
            "client" => config.limits.client_connections = number()?,
            "queries" => config.limits.queries = number()?,
            "idle" => config.limits.idle = time()?,
            "handshake" => config.limits.handshake = time()?,
            "rate" => config.rate.per_second = number()? as u32,
            _ => return Err(format!("no key `{key}`")),
        }
    }
    Ok(())
}

/// `NAME cidrs=… listeners=… keys=… set=… zones=…`, lists with commas.
fn view(words: &[&str]) -> Result<View, String> {
    let (name, rest) = words.split_first().ok_or("which view?")?;
    let mut view = View { name: (*name).to_owned(), ..View::default() };
    for word in rest {
        let (key, value) = word.split_once('=').ok_or(format!("`{word}` is not key=value"))?;
        let all = || value.split(',');
        match key {
            "cidrs" => {
                view.cidrs =
                    all().map(|v| v.parse().map_err(|_| format!("`{v}` is no range"))).collect::<Result<_, _>>()?
            }
            "listeners" => view.listeners = all().map(str::to_owned).collect(),
            "keys" => {
                let name = |v| Name::from_ascii(v).map(absolute).map_err(|e| format!("`{v}`: {e}"));
                view.tsig_keys = all().map(name).collect::<Result<_, _>>()?;
            }
            "set" => view.cluster_set = Some(value.to_owned()),
            "zones" => {
                let name = |v| Name::from_ascii(v).map(absolute).map_err(|e| format!("`{v}`: {e}"));
                view.zones = all().map(name).collect::<Result<_, _>>()?;
            }
            _ => return Err(format!("no key `{key}`")),
        }
    }
    Ok(view)
}

/// `cluster=… region=… zone=… set=…`.
fn standing(words: &[&str]) -> Result<Standing, String> {
    let mut standing = Standing::default();
    for word in words {
        let (key, value) = word.split_once('=').ok_or(format!("`{word}` is not key=value"))?;
        let value = Some(value.to_owned());
        match key {
            "cluster" => standing.cluster = value,
            "region" => standing.region = value,
            "zone" => standing.zone = value,
            "set" => standing.cluster_set = value,
            _ => return Err(format!("no key `{key}`")),
        }
    }
    Ok(standing)
}

/// The fact of a `member`.
pub(crate) fn member(step: &Step, server: impl Fn(&str) -> Option<SocketAddr>) -> Result<(String, Value), Wrong> {
    let bad = |why: String| (step.line, why);
    let name = step.plain().first().map(|n| (*n).to_owned()).ok_or_else(|| bad("which member?".to_owned()))?;
    let names = step.option("dns").into_iter().flat_map(|d| d.split(','));
    let at = |n: &str| server(n).map(|a| a.to_string()).ok_or_else(|| bad(format!("no server `{n}`")));
    let servers: Vec<String> = names.map(at).collect::<Result<_, _>>()?;
    let mut dns = json!({"servers": servers});
    for key in ["kind", "domain", "protocol"] {
        if let Some(value) = step.option(key) {
            dns[key] = value.into();
        }
    }
    if let Some(aliases) = step.option("aliases") {
        let one = |a: &str| a.split_once(':').map(|(name, domain)| json!({"name": name, "domain": domain}));
        dns["aliases"] = aliases.split(',').filter_map(one).collect();
    }
    let mut spec = json!({"environment": step.option("env").unwrap_or("prod")});
    for (key, field) in [("region", "region"), ("zone", "zone"), ("set", "clusterSet"), ("role", "role")] {
        if let Some(value) = step.option(key) {
            spec[field] = value.into();
        }
    }
    let dns = if step.option("dns").is_some() { dns } else { Value::Null };
    let ready = step.option("ready") != Some("no");
    let pods = step.option("net").map(|net| format!("127.{net}.0.0/16"));
    let fact = json!({
        "name": name, "ready": ready, "dnsReady": ready, "dns": dns, "spec": spec,
        "cidrs": {"pods": pods.into_iter().collect::<Vec<_>>()},
    });
    Ok((format!("cluster/{name}"), fact))
}

/// The facts of a `service`: one ready endpoint in each cluster, at 127.<net>.0.80.
pub(crate) fn service(step: &Step, facts: &BTreeMap<String, Value>) -> Result<Vec<(String, Value)>, Wrong> {
    let bad = |why: &str| (step.line, why.to_owned());
    let plain = step.plain();
    let name = plain.first().ok_or_else(|| bad("which service?"))?;
    let clusters: Vec<&str> = step.option("clusters").ok_or_else(|| bad("in which clusters?"))?.split(',').collect();
    let headless = plain.contains(&"headless");
    let set = step.option("set").unwrap_or("prod");
    let ports = json!([{"name": "http", "protocol": "TCP", "port": 80}]);
    let mut made =
        vec![(format!("service/{set}/{name}"), json!({"clusters": clusters, "ports": ports, "headless": headless}))];
    for cluster in &clusters {
        let fact = facts.get(&format!("cluster/{cluster}")).ok_or_else(|| bad("no such member yet"))?;
        let pods = fact["cidrs"]["pods"][0].as_str().ok_or_else(|| bad("its member has no net"))?;
        let net = pods.split('.').nth(1).unwrap_or("0");
        let endpoint =
            json!({"address": format!("127.{net}.0.80"), "ready": true, "hostname": step.option("hostname")});
        let there = json!({"endpoints": [endpoint], "ports": [{"name": "http", "protocol": "TCP", "port": 8080}]});
        made.push((format!("endpoints/{cluster}/{name}"), there));
    }
    Ok(made)
}
