//! What all Ingresses together say of each host: whose path it is, what takes a part of it, with which certificate. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::canary;
use super::read::{Finding, finding};
use super::tls::Clients;
use super::wish::{Backend, Canary, Wish};

/// A path of a host.
#[derive(Debug)]
pub(super) struct Owned {
    /// Whose it is, by its place.
    pub(super) owner: usize,
    /// Which of its paths.
    pub(super) at: usize,
    /// What takes a part of its requests.
    pub(super) canary: Option<(Canary, Backend)>,
}

/// A host.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) paths: Vec<Owned>,
    /// All paths are regular expressions.
    pub(super) regex: bool,
    /// namespace and name of the Secret.
    pub(super) certificate: Option<(String, String)>,
    /// The certificate is its own, not that of everybody.
    pub(super) has_own: bool,
    /// How clients are asked for certificates.
    pub(super) clients: Option<Clients>,
    /// Its TLS is passed on to the backend of that path, by its place among [`Self::paths`].
    pub(super) passes: Option<usize>,
    /// Everything goes to that host instead.
    pub(super) moved: Option<String>,
}

/// Hosts by name; empty: any.
pub(super) type Hosts = BTreeMap<String, Host>;

/// Puts the wishes, the oldest first, together.
pub(super) fn merge(wishes: &mut [Wish], default_certificate: Option<&(String, String)>) -> Hosts {
    let mut hosts = Hosts::new();
    let named: BTreeSet<String> = wishes.iter().flat_map(|w| w.paths.iter().map(|p| p.host.clone())).collect();
    let mut seen: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for owner in 0..wishes.len() {
        let mut lost = Vec::new();
        for at in (0..wishes[owner].paths.len()).filter(|_| wishes[owner].canary.is_none()) {
            for host in names(&wishes[owner], at, &named) {
                let path = &wishes[owner].paths[at].path;
                let first = *seen.entry((host.clone(), path.value.clone(), path.kind.clone())).or_insert(owner);
                if first != owner {
                    let other = format!("{}/{}", wishes[first].namespace, wishes[first].name);
                    lost.push(note(
                        "paths",
                        format!("`{host}{}` is of the older Ingress {other}", path.value),
                        "HTTPRoute rules",
                    ));
                    continue;
                }
                let found = hosts.entry(host).or_default();
                if !found.paths.iter().any(|p| (p.owner, p.at) == (owner, at)) {
                    found.paths.push(Owned { owner, at, canary: None });
                    found.regex |= wishes[owner].regex;
                }
            }
        }
        wishes[owner].findings.extend(lost);
    }
    let alone: Vec<(usize, usize)> =
        (0..wishes.len()).flat_map(|canary| canary::part(wishes, canary, &mut hosts)).collect();
    for (owner, at) in alone {
        canary::close(wishes, owner, at, &mut hosts);
    }
    let certificates = certificates(wishes);
    for (name, host) in &mut hosts {
        let own = certificates.get(name).or_else(|| certificates.get(&format!("*.{}", name.split_once('.')?.1)));
        host.has_own = own.is_some();
        host.certificate = own.or(default_certificate).cloned();
    }
    www(wishes, &mut hosts, &certificates, default_certificate);
    for (name, host) in &mut hosts {
        pass(wishes, name, host);
        ask(wishes, name, host);
    }
    hosts
}

/// Whose TLS is passed on: the owner of the host's root says.
fn pass(wishes: &mut [Wish], name: &str, host: &mut Host) {
    let root = host.paths.iter().position(|path| wishes[path.owner].paths[path.at].path.value == "/");
    let mut found = None;
    for owner in owners(host) {
        if !wishes[owner].passes {
            continue;
        }
        let of_root = root.filter(|at| host.paths[*at].owner == owner);
        let why = match of_root {
            None => Some("the root of the host is not its own"),
            Some(_) if name.is_empty() => Some("without a host nobody knows whose TLS it is"),
            Some(_) if !wishes[owner].steps.is_empty() || wishes[owner].clients.is_some() => {
                Some("filters can't look into what is passed on")
            }
            Some(_) => None,
        };
        match why {
            None => found = of_root,
            Some(why) => {
                let why = format!("`{name}`: {why}");
                wishes[owner].findings.push(finding("ssl-passthrough", why, true));
            }
        }
    }
    host.passes = found;
}

/// How a host asks clients for certificates: as the oldest Ingress says that wants it.
fn ask(wishes: &mut [Wish], name: &str, host: &mut Host) {
    let wanting: Vec<usize> = owners(host).into_iter().filter(|owner| wishes[*owner].clients.is_some()).collect();
    let Some(first) = wanting.first() else { return };
    let wanted = wishes[*first].clients.clone();
    for owner in &wanting {
        let why = if host.certificate.is_none() {
            "it has no certificate of its own, so TLS doesn't end here".to_owned()
        } else if wishes[*owner].clients != wanted {
            format!(
                "Ingress `{}/{}`, which is older, wants it otherwise",
                wishes[*first].namespace, wishes[*first].name
            )
        } else {
            continue;
        };
        wishes[*owner].findings.push(finding("auth-tls-secret", format!("`{name}`: {why}"), true));
    }
    host.clients = wanted.filter(|_| host.certificate.is_some());
}

/// Whose paths a host has, the oldest first.
fn owners(host: &Host) -> Vec<usize> {
    let mut owners: Vec<usize> = host.paths.iter().map(|path| path.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// The hosts of a path: its own, and aliases that nobody names.
fn names(wish: &Wish, at: usize, named: &BTreeSet<String>) -> Vec<String> {
    let own = wish.paths[at].host.clone();
    let aliases = wish.aliases.iter().filter(|alias| !own.is_empty() && !named.contains(*alias));
    std::iter::once(own.clone()).chain(aliases.cloned()).collect()
}

/// Secrets by host; the oldest Ingress that names a host counts.
fn certificates(wishes: &[Wish]) -> BTreeMap<String, (String, String)> {
    let mut found = BTreeMap::new();
    for wish in wishes {
        let spec = wish.object.spec.iter();
        for tls in spec.flat_map(|spec| spec.tls.iter().flatten()) {
            let Some(secret) = tls.secret_name.clone().filter(|name| !name.is_empty()) else { continue };
            let mut hosts: Vec<String> = tls.hosts.iter().flatten().map(|host| host.to_ascii_lowercase()).collect();
            if hosts.is_empty() {
                hosts = wish.paths.iter().map(|wished| wished.host.clone()).collect();
            }
            for host in hosts {
                found.entry(host).or_insert_with(|| (wish.namespace.clone(), secret.clone()));
            }
        }
    }
    found
}

/// Hosts that lead to their names with or without `www.`.
fn www(
    wishes: &[Wish],
    hosts: &mut Hosts,
    certificates: &BTreeMap<String, (String, String)>,
    default_certificate: Option<&(String, String)>,
) {
    for wish in wishes.iter().filter(|wish| wish.www && wish.canary.is_none()) {
        for wished in wish.paths.iter().filter(|wished| !wished.host.is_empty() && !wished.host.starts_with('*')) {
            let other = wished.host.strip_prefix("www.").map_or_else(|| format!("www.{}", wished.host), str::to_owned);
            if hosts.contains_key(&other) {
                continue;
            }
            let own = certificates.get(&other).or_else(|| certificates.get(&format!("*.{}", other.split_once('.')?.1)));
            let own = own.or_else(|| certificates.get(&wished.host)).or(default_certificate).cloned();
            hosts.insert(other, Host { moved: Some(wished.host.clone()), certificate: own, ..Host::default() });
        }
    }
}

pub(super) fn note(what: &str, why: String, way: &'static str) -> Finding {
    Finding { what: what.to_owned(), why, way, closes: false }
}
