//! `atoll dns stub --for RESOLVER`: the configuration with which a resolver asks Atoll for the names that are Atoll's.
//!
//! In: what the flags say, else the hub's settings and its clusters' address ranges. Out: one resolver's own language on stdout, with
//! remarks as its comments (or on stderr where it has none). One file and one row a resolver. Never changes anything: whoever runs the
//! resolver applies it.

mod consul;
mod coredns;
mod dnsmasq;
mod kube_dns;
mod mesos_dns;
mod systemd_resolved;
mod unbound;

use std::net::SocketAddr;

use atoll_api::kinds::Cluster;
use atoll_api::reverse;
use atoll_api::topology::StubFacts;
use atoll_federation::HubFacts;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::Globals;
use super::dns;
use super::failure::{Failure, Outcome};
use super::output::note;
use super::run_files::Ready;

/// The zone of the multi-cluster services (MCS DNS specification 1.0.0).
const CLUSTERSET: &str = "clusterset.local";
/// A resolver that can be told whom to ask for some names.
struct Resolver {
    name: &'static str,
    /// Whether it is the DNS of a member: for the member's own addresses Atoll asks it, so it must not ask Atoll for them.
    of_member: bool,
    /// How its comments begin; `None`: it has none.
    comment: Option<&'static str>,
    /// Where it goes and how it comes into force.
    place: &'static str,
    /// Its configuration.
    write: fn(&Stub) -> Outcome<Text>,
}

/// The resolvers there are.
const RESOLVERS: &[Resolver] = &[
    coredns::RESOLVER,
    kube_dns::RESOLVER,
    mesos_dns::RESOLVER,
    consul::RESOLVER,
    unbound::RESOLVER,
    dnsmasq::RESOLVER,
    systemd_resolved::RESOLVER,
];

/// The configuration of the resolver of that name, for the agent that applies it: without remarks.
///
/// # Errors
/// No such resolver; what `facts` say can't be said to it.
pub(crate) fn text(resolver: &str, facts: &StubFacts) -> Result<String, String> {
    let servers = facts.servers.iter().map(|text| server(text)).collect::<Outcome<Vec<_>>>();
    let written = servers.and_then(|servers| {
        let stub = Stub { apex: domain(&facts.apex)?, servers, reverse: facts.reverse.clone() };
        (find(resolver)?.write)(&stub)
    });
    written.map(|text| text.config).map_err(|failure| failure.message)
}

/// Whether there is a resolver of that name.
///
/// # Errors
/// There is none.
pub(crate) fn known(resolver: &str) -> Result<(), String> {
    find(resolver).map(drop).map_err(|failure| failure.message)
}

/// What a configuration says.
struct Stub {
    /// Without the last dot.
    apex: String,
    servers: Vec<SocketAddr>,
    /// Reverse zones, without the last dot.
    reverse: Vec<String>,
}

/// A configuration, and what to know about it.
struct Text {
    config: String,
    remarks: Vec<String>,
}

impl Stub {
    /// Every zone that is asked of Atoll.
    fn zones(&self) -> impl Iterator<Item = &str> {
        [self.apex.as_str(), CLUSTERSET].into_iter().chain(self.reverse.iter().map(String::as_str))
    }

    /// The servers, each as `form` writes it.
    fn servers(&self, form: fn(SocketAddr) -> String) -> Vec<String> {
        self.servers.iter().map(|server| form(*server)).collect()
    }
}

/// Print the configuration with which a resolver asks Atoll for Atoll's names.
#[derive(Debug, clap::Args)]
pub(crate) struct Command {
    /// coredns, kube-dns, mesos-dns, consul, unbound, dnsmasq or systemd-resolved
    #[arg(long = "for", value_name = "RESOLVER")]
    resolver: String,
    /// Atoll's DNS servers, IP or IP:port; default: what the hub advertises, else that of the running `atoll up`
    #[arg(long = "server", value_name = "ADDRESS", num_args = 1.., value_delimiter = ',')]
    servers: Vec<String>,
    /// The domain; default: the hub's
    #[arg(long, value_name = "DOMAIN")]
    apex: Option<String>,
    /// The cluster whose DNS the resolver is: the reverse zones of all others are asked of Atoll
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl Command {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let resolver = find(&self.resolver)?;
        let given = self.servers.iter().map(|text| server(text)).collect::<Outcome<Vec<_>>>()?;
        let apex = self.apex.as_deref().map(domain).transpose()?;
        let known = Known::ask(globals, apex.is_some() && !given.is_empty()).await?;
        let mut remarks = known.remarks;
        let servers = if given.is_empty() { servers(globals, known.facts.as_ref())? } else { given };
        let hubs = known.facts.as_ref().map(|facts| facts.apex.clone()).filter(|apex| !apex.is_empty());
        let Some(apex) = apex.or(hubs) else {
            return Err(Failure::failed("the hub does not say its apex (it is of an earlier version): --apex DOMAIN"));
        };
        if let (Some(name), Some(clusters)) = (&self.cluster, &known.clusters)
            && !clusters.iter().any(|cluster| cluster.name_any() == *name)
        {
            return Err(Failure::usage(format!("--cluster `{name}`: there is no such cluster")));
        }
        let clusters = known.clusters.unwrap_or_default();
        let reverse = if resolver.of_member && self.cluster.is_none() && !clusters.is_empty() {
            remarks.push(
                "without reverse zones: --cluster NAME says whose DNS this is, and adds those of all others".into(),
            );
            Vec::new()
        } else {
            reverse_zones(&clusters, self.cluster.as_deref(), &mut remarks)
        };
        if servers.iter().any(|server| server.ip().is_loopback()) {
            remarks.push("a loopback address is this machine only: --server names what others reach".into());
        }
        let stub = Stub { apex, servers, reverse };
        let mut text = (resolver.write)(&stub)?;
        text.remarks.extend(remarks);
        let document = json!({
            "for": resolver.name, "place": resolver.place, "apex": stub.apex,
            "servers": stub.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "zones": stub.zones().collect::<Vec<_>>(), "config": text.config, "remarks": text.remarks,
        });
        globals.output.show(&document, || resolver.page(&text))
    }
}

impl Resolver {
    /// The configuration under its remarks; those of a language without comments are said on stderr.
    fn page(&self, text: &Text) -> String {
        let remarks = std::iter::once(self.place).chain(text.remarks.iter().map(String::as_str));
        let lines: Vec<&str> = remarks.flat_map(str::lines).collect();
        match self.comment {
            Some(sign) => {
                let head = lines.iter().map(|line| format!("{sign} {line}").trim_end().to_owned()).collect::<Vec<_>>();
                format!("{}\n{}", head.join("\n"), text.config)
            }
            None => {
                lines.into_iter().for_each(note);
                text.config.clone()
            }
        }
    }
}

/// What the hub knows; nothing of it has to be when the flags say enough.
#[derive(Default)]
struct Known {
    facts: Option<HubFacts>,
    clusters: Option<Vec<Cluster>>,
    remarks: Vec<String>,
}

impl Known {
    async fn ask(globals: &Globals, may_fail: bool) -> Outcome<Self> {
        match Self::read(globals).await {
            Ok(known) => Ok(known),
            Err(failure) if may_fail => {
                let remark = format!(
                    "without reverse zones, for the hub does not say the clusters' addresses: {}",
                    failure.message
                );
                Ok(Self { remarks: vec![remark], ..Self::default() })
            }
            Err(Failure { code, message }) => {
                let message = format!("{message}; or say it here: --apex DOMAIN --server ADDRESS");
                Err(Failure { code, message })
            }
        }
    }

    async fn read(globals: &Globals) -> Outcome<Self> {
        let client: Client = globals.hub().await?.client;
        // First what tells those who may not from those who can't.
        let clusters = Api::<Cluster>::all(client.clone()).list(&ListParams::default()).await;
        let clusters = clusters.map_err(Failure::api("list clusters"))?.items;
        let facts = HubFacts::read(&client).await.map_err(|e| Failure::failed(e.to_string()))?;
        Ok(Self { facts: Some(facts), clusters: Some(clusters), remarks: Vec::new() })
    }
}

fn find(name: &str) -> Outcome<&'static Resolver> {
    let names = || RESOLVERS.iter().map(|r| r.name).collect::<Vec<_>>().join(", ");
    let unknown = || Failure::usage(format!("--for `{name}`: no such resolver is known, there are {}", names()));
    RESOLVERS.iter().find(|resolver| resolver.name == name).ok_or_else(unknown)
}

/// An address that can be asked.
fn server(text: &str) -> Outcome<SocketAddr> {
    let at = dns::parse(text)?;
    if at.port() == 0 || at.ip().is_unspecified() || at.ip().is_multicast() {
        return Err(Failure::usage(format!("DNS server `{text}`: nobody can be asked there")));
    }
    Ok(at)
}

/// What the hub advertises, else where the running `atoll up` answers.
fn servers(globals: &Globals, facts: Option<&HubFacts>) -> Outcome<Vec<SocketAddr>> {
    let advertised = facts.and_then(|facts| facts.dns.clone());
    let Some(at) = advertised.or_else(|| Ready::find(globals)?.dns) else {
        return Err(Failure::usage(
            "where Atoll's DNS answers is not known: --server ADDRESS, or `advertise.dns` in the hub's file",
        ));
    };
    let server = server(&at).map_err(|_| {
        Failure::usage(format!("the hub advertises its DNS as `{at}`, and resolvers want an address: --server ADDRESS"))
    })?;
    Ok(vec![server])
}

fn domain(text: &str) -> Outcome<String> {
    let name = atoll_api::names::domain(text);
    name.ok_or_else(|| Failure::usage(format!("--apex `{text}`: is no domain name, such as atoll.internal")))
}

/// The reverse zones of every cluster's ranges but of that one's own.
fn reverse_zones(clusters: &[Cluster], own: Option<&str>, remarks: &mut Vec<String>) -> Vec<String> {
    let (mut own_ranges, mut all) = (Vec::new(), Vec::new());
    for cluster in clusters {
        let found = cluster.status.as_ref().and_then(|status| status.cidrs.clone());
        let ranges = cluster.spec.cidrs.clone().or(found).unwrap_or_default();
        let ranges = ranges.pods.into_iter().chain(ranges.services);
        let name = cluster.name_any();
        if own == Some(name.as_str()) {
            own_ranges.extend(ranges);
        } else {
            all.extend(ranges.map(|range| (range, name.clone())));
        }
    }
    let others = reverse::others(own_ranges.iter().map(String::as_str), all.iter().map(|(range, _)| range.as_str()));
    if !others.left_out.is_empty() {
        let whose = |out: &String| all.iter().find(|(range, _)| range == out).map_or("?", |(_, name)| name.as_str());
        let named: Vec<String> = others.left_out.iter().map(|out| format!("{out} ({})", whose(out))).collect();
        remarks.push(format!(
            "no zone of their own have the addresses {}: they stay with whom has the zone around them",
            named.join(", ")
        ));
    }
    if others.beyond > 0 {
        remarks.push(format!(
            "of {} reverse zones the first {}",
            others.zones.len() + others.beyond,
            others.zones.len()
        ));
    }
    others.zones
}

#[cfg(test)]
mod tests;
