//! Where a name belongs: Here, Below a member, Beside (the federation's own services), a host of a policy, or Outside. Pure.
//!
//! ```text
//!   db.atoll.internal                        Here: own records
//!   web.shop.svc.prod-eu.atoll.internal      Below: prod-eu is asked for web.shop.svc.cluster.local
//!   web.shop.svc[.<r>.region|.<e>.env].atoll.internal, web.shop.svc.clusterset.local    Beside
//!   shop.example.com                         Host: a TrafficPolicy names it
//!   7.0.1.10.in-addr.arpa                    Below: the member whose ranges hold the address
//!   example.org                              Outside
//! ```
//!
//! In: the table, a name, a type, who asks. Out: [`Place`]. Exact own records come before everything; the longest zone counts.

use std::fmt;
use std::sync::Arc;

use atoll_api::names::ServiceName;
use hickory_proto::rr::{Name, RecordType};

use crate::arpa::{Reverse, reverse};
use crate::client::Asker;
use crate::names::{left_of, text};
use crate::policy::Policy;
use crate::table::{Member, Table};
use crate::translate::Refused;
use crate::zones::Zone;

/// Where a name belongs.
#[derive(Debug)]
pub(crate) enum Place<'t> {
    /// In a zone of ours.
    Here(&'t Arc<Zone>),
    /// In a member.
    Below(Below<'t>),
    /// In a member, but what it would be asked is no name.
    Unaskable(&'t Arc<Member>, Refused),
    /// Among the services of the asker's cluster set.
    Beside(&'t Arc<Zone>, Beside),
    /// A host that a policy names; the zone is for negative answers.
    Host(&'t Arc<Zone>, &'t Arc<Policy>),
    /// In a reverse zone of a member, above its addresses: exists, holds nothing.
    Inner(&'t Arc<Member>),
    /// In a reverse zone of a member that has no such names.
    Nowhere(&'t Arc<Member>),
    /// Nobody's that we know.
    Outside,
    /// No topology yet: we don't know what is ours.
    Unknown,
}

/// A name of a member.
#[derive(Debug)]
pub(crate) struct Below<'t> {
    pub(crate) member: &'t Arc<Member>,
    /// What the member calls it.
    pub(crate) native: Name,
    /// A name of a reverse zone.
    pub(crate) reverse: bool,
    /// The subtree's own name, which exists whatever the member says.
    pub(crate) top: bool,
}

/// A name of the federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    /// The name without what stands left of the service: what SRV records point to.
    pub(crate) base: Option<Name>,
    /// Which clusters count.
    pub(crate) scope: Scope,
    /// What is asked for.
    pub(crate) what: What,
}

/// Which clusters count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The whole set.
    Set,
    /// Those of one region.
    Region(String),
    /// Those of one environment.
    Environment(String),
}

/// What is asked for among the federation's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A name that the hierarchy itself has: `svc`, `region`, `eu-central.region`.
    Inner,
    /// A namespace.
    Namespace(String),
    /// A service.
    Service(ServiceName),
    /// A protocol of a service: `_tcp.…`.
    Protocol(ServiceName, String),
    /// A named port: `_http._tcp.…`.
    Port(ServiceName, String, String),
    /// A host of a headless service, and the id of its cluster: `web-0.prod-eu.…`.
    Endpoint(ServiceName, String, String),
    /// The id of a cluster of a headless service, or the end of one: `prod-eu.…`.
    Cluster(ServiceName, String),
    /// The version of the multi-cluster DNS specification.
    Version,
    /// No such name.
    Nothing,
}

impl What {
    /// The service that it is about.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service(s)
            | Self::Protocol(s, _)
            | Self::Port(s, ..)
            | Self::Endpoint(s, ..)
            | Self::Cluster(s, _) => Some(s),
            Self::Inner | Self::Namespace(_) | Self::Version | Self::Nothing => None,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner => write!(f, "an inner name"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Service(service) => write!(f, "service {service}"),
            Self::Protocol(service, protocol) => write!(f, "protocol {protocol} of service {service}"),
            Self::Port(service, port, protocol) => write!(f, "port {port}/{protocol} of service {service}"),
            Self::Endpoint(service, host, cluster) => write!(f, "host {host} in {cluster} of service {service}"),
            Self::Cluster(service, cluster) => write!(f, "cluster {cluster} of service {service}"),
            Self::Version => write!(f, "the version of the specification"),
            Self::Nothing => write!(f, "no name of the hierarchy"),
        }
    }
}

/// Places `name`.
pub(crate) fn place<'t>(table: &'t Table, asker: &Asker, name: &Name, kind: RecordType) -> Place<'t> {
    let Some(apex) = &table.apex else {
        return table.home.as_ref().map_or(Place::Unknown, |home| home.place_alone(name));
    };
    let zone = table.zone_placing(asker, name, kind);
    if let Some(own) = table.home.as_ref().and_then(|home| home.place(name, zone.map(|z| z.apex()))) {
        return own;
    }
    if let Some(own) = zone.filter(|z| z.has(name, kind)) {
        return Place::Here(own);
    }
    if let (Some(policy), Some(zone)) = (table.host(name), zone) {
        return Place::Host(zone, policy);
    }
    if let Some(own) = zone.filter(|z| z.owns(name)) {
        return Place::Here(own);
    }
    if let Some(reverse) = reverse(name) {
        return zone.map_or_else(
            || reversed(table, asker, name, &reverse),
            |z| match reversed(table, asker, name, &reverse) {
                Place::Outside | Place::Inner(_) => Place::Here(z),
                member => member,
            },
        );
    }
    match zone {
        None => Place::Outside,
        Some(zone) if zone.apex() == apex => in_apex(table, asker, zone, name),
        Some(zone) if Some(zone.apex()) == table.clusterset.as_ref() => in_clusterset(zone, name),
        Some(zone) => Place::Here(zone),
    }
}

fn in_apex<'t>(table: &'t Table, asker: &Asker, zone: &'t Arc<Zone>, name: &Name) -> Place<'t> {
    let path = words(name, zone.apex());
    let Some((last, rest)) = path.split_last() else { return Place::Here(zone) };
    let scoped = |scope: fn(String) -> Scope, base: usize| match rest.split_last() {
        None => beside(zone, name, base, Scope::Set, What::Inner),
        Some((which, rest)) => match rest.split_last() {
            None => beside(zone, name, base, scope(which.clone()), What::Inner),
            Some((svc, rest)) if svc == "svc" => beside(zone, name, base + 2, scope(which.clone()), service(rest)),
            Some(_) => beside(zone, name, base, Scope::Set, What::Nothing),
        },
    };
    match last.as_str() {
        "svc" => beside(zone, name, 1, Scope::Set, service(rest)),
        "region" => scoped(Scope::Region, 1),
        "env" => scoped(Scope::Environment, 1),
        cluster => match table.members.get(cluster) {
            None => Place::Here(zone),
            Some(member) => match member.rename.to_native(name) {
                // What it asks us for it must not be asked back for.
                Ok(Some(native)) if own(asker, member) && native == *name => Place::Unaskable(member, Refused::Loop),
                Ok(Some(native)) => Place::Below(Below { member, native, reverse: false, top: rest.is_empty() }),
                Ok(None) => Place::Here(zone),
                Err(refused) => Place::Unaskable(member, refused),
            },
        },
    }
}

/// Whether the member itself asks.
fn own(asker: &Asker, member: &Member) -> bool {
    asker.cluster.as_deref() == Some(member.name.as_str())
}

/// The multi-cluster DNS specification 1.0.0.
fn in_clusterset<'t>(zone: &'t Arc<Zone>, name: &Name) -> Place<'t> {
    let path = words(name, zone.apex());
    match path.split_last() {
        None => Place::Here(zone),
        Some((last, rest)) if last == "svc" => beside(zone, name, 1, Scope::Set, service(rest)),
        Some((last, [])) if last == "dns-version" => beside(zone, name, 0, Scope::Set, What::Version),
        Some(_) => beside(zone, name, 0, Scope::Set, What::Nothing),
    }
}

/// `words` words between service and zone.
fn beside<'t>(zone: &'t Arc<Zone>, name: &Name, words: usize, scope: Scope, what: What) -> Place<'t> {
    let labels = zone.apex().iter().len() + words + 2;
    let base = (name.iter().len() >= labels).then(|| name.trim_to(labels));
    Place::Beside(zone, Beside { base, scope, what })
}

/// What stands left of `svc`.
fn service(path: &[String]) -> What {
    let name = |namespace: &String, service: &String| ServiceName::new(namespace.clone(), service.clone());
    match path {
        [] => What::Inner,
        [ns] => What::Namespace(ns.clone()),
        [svc, ns] => What::Service(name(ns, svc)),
        [word, svc, ns] => match word.strip_prefix('_') {
            Some(protocol) => What::Protocol(name(ns, svc), protocol.to_owned()),
            None => What::Cluster(name(ns, svc), word.clone()),
        },
        [first, second, svc, ns] => match (first.strip_prefix('_'), second.strip_prefix('_')) {
            (Some(port), Some(protocol)) => What::Port(name(ns, svc), port.to_owned(), protocol.to_owned()),
            _ => What::Endpoint(name(ns, svc), first.clone(), second.clone()),
        },
        // An id may have several labels (KEP-2149).
        [host, id @ .., svc, ns] if !host.starts_with('_') => What::Endpoint(name(ns, svc), host.clone(), id.join(".")),
        _ => What::Nothing,
    }
}

/// The labels left of `zone` as lower-case text; one that is no text is a word that nothing is called.
fn words(name: &Name, zone: &Name) -> Vec<String> {
    let labels = left_of(name, zone).unwrap_or_default();
    labels.into_iter().map(|l| text(l).map_or_else(|| "\u{fffd}".to_owned(), str::to_ascii_lowercase)).collect()
}

/// Whose a name of a reverse zone is. Where ranges overlap each asker sees its own member's, else the narrowest range's.
fn reversed<'t>(table: &'t Table, asker: &Asker, name: &Name, reverse: &Reverse) -> Place<'t> {
    let owners = table.owners_of(reverse);
    let own = owners.iter().find(|(_, o)| Some(o.as_str()) == asker.cluster.as_deref()).or_else(|| owners.first());
    let member = own.and_then(|(_, name)| table.members.get(*name));
    match member {
        Some(member) if reverse.whole && reverse.address().is_none() => Place::Inner(member),
        // Nothing can be there, and it would ask others (Mesos-DNS).
        Some(member) if !member.kind.reverse => Place::Nowhere(member),
        // Who lives there gets its own names.
        Some(member) if table.home.as_ref().is_some_and(|home| home.cluster == member.name) => {
            let own = table.home.as_ref().and_then(|home| home.place_reverse(name));
            own.unwrap_or(Place::Nowhere(member))
        }
        Some(member) => Place::Below(Below { member, native: name.clone(), reverse: true, top: false }),
        None => Place::Outside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::names::absolute;
    use crate::testing::topology;

    #[test]
    fn every_name_has_one_place() {
        let table = Table::new(&Arc::new(topology()), &Config::default(), &crate::geo::Geo::default());
        let show = |name: &str| match place(&table, &Asker::default(), &absolute(name).unwrap(), RecordType::A) {
            Place::Here(zone) => format!("here {}", zone.apex()),
            Place::Below(b) => format!("below {} {}{}", b.member.name, b.native, if b.top { " top" } else { "" }),
            Place::Unaskable(m, why) => format!("unaskable {} {why}", m.name),
            Place::Beside(_, b) => {
                let scope = match b.scope {
                    Scope::Set => String::new(),
                    Scope::Region(r) => format!(" in {r}"),
                    Scope::Environment(e) => format!(" of {e}"),
                };
                match b.what {
                    What::Service(s) => format!("service {s}{scope} at {}", b.base.unwrap()),
                    What::Port(s, port, protocol) => format!("port {s} {port} {protocol} at {}", b.base.unwrap()),
                    other => format!("{other:?}{scope}"),
                }
            }
            Place::Host(zone, policy) => format!("host of {} in {}", policy.name(), zone.apex()),
            Place::Inner(m) => format!("inner {}", m.name),
            Place::Nowhere(m) => format!("nowhere {}", m.name),
            Place::Outside => "outside".to_owned(),
            Place::Unknown => "unknown".to_owned(),
        };
        for (name, want) in [
            ("atoll.internal", "here atoll.internal."),
            ("db.atoll.internal", "here atoll.internal."),
            ("nowhere.atoll.internal", "here atoll.internal."),
            ("special.prod-eu.atoll.internal", "here atoll.internal."),
            ("web.shop.svc.prod-eu.atoll.internal", "below prod-eu web.shop.svc.cluster.local."),
            ("WEB.shop.svc.PROD-EU.Atoll.Internal", "below prod-eu web.shop.svc.cluster.local."),
            ("prod-eu.atoll.internal", "below prod-eu cluster.local. top"),
            ("web.service.lab.atoll.internal", "below lab web.service.consul."),
            ("svc.atoll.internal", "Inner"),
            ("shop.svc.atoll.internal", "Namespace(\"shop\")"),
            ("web.shop.svc.atoll.internal", "service shop/web at web.shop.svc.atoll.internal."),
            ("web.shop.svc.clusterset.local", "service shop/web at web.shop.svc.clusterset.local."),
            (
                "web.shop.svc.eu-central.region.atoll.internal",
                "service shop/web in eu-central at web.shop.svc.eu-central.region.atoll.internal.",
            ),
            (
                "web.shop.svc.prod.env.atoll.internal",
                "service shop/web of prod at web.shop.svc.prod.env.atoll.internal.",
            ),
            ("region.atoll.internal", "Inner"),
            ("eu-central.region.atoll.internal", "Inner in eu-central"),
            ("x.eu-central.region.atoll.internal", "Nothing"),
            ("_http._tcp.web.shop.svc.atoll.internal", "port shop/web http tcp at web.shop.svc.atoll.internal."),
            ("dns-version.clusterset.local", "Version"),
            ("x.clusterset.local", "Nothing"),
            ("shop.example.com", "host of shop/hosts in example.com."),
            ("x.apps.example.net", "host of shop/hosts in apps.example.net."),
            ("alone.example.org", "here alone.example.org."),
            ("example.org", "outside"),
            ("1.0.1.10.in-addr.arpa", "below prod-eu 1.0.1.10.in-addr.arpa."),
            ("0.1.10.in-addr.arpa", "inner prod-eu"),
            ("10.in-addr.arpa", "outside"),
            ("1.0-25.0.1.10.in-addr.arpa", "below prod-eu 1.0-25.0.1.10.in-addr.arpa."),
            ("1.0.0.127.in-addr.arpa", "outside"),
            ("arpa", "outside"),
        ] {
            assert_eq!(show(name), want, "{name}");
        }
        let long = format!("{}.prod-eu.atoll.internal", ["a"; 115].join("."));
        assert!(show(&long).starts_with("below prod-eu"), "{}", show(&long));
    }
}
