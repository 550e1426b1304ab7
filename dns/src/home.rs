//! The member whose node-local DNS this server is: which names are its own, and whom to ask for those of others.
//!
//! ```text
//!   web.shop.svc.cluster.local      its own DNS, as it says it          Below, under the name that its pods use
//!   7.0.1.10.in-addr.arpa           the same, where its ranges hold it
//!   …svc.atoll.internal, …clusterset.local, hosts, own zones            out of the topology, as at every DNS server
//!   web.shop.svc.prod-us.atoll.internal     that member where it is reached directly, else the federation's DNS servers
//!   example.org                     upstreams: its own DNS, unless others are written
//! ```
//!
//! In: what the agent found of the member, the topology. Out: [`Place`]s, servers, a standing. Before the first topology the member's own
//! names and names outside are answered; what may be the federation's is not known yet, and is never asked of the member.

use std::net::SocketAddr;
use std::sync::Arc;

use atoll_api::kinds::{ClusterSpec, MemberDns};
use atoll_api::names::ClusterName;
use atoll_api::topology::{ClusterFacts, Standing, Topology};
use atoll_reach::Route;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;

use crate::answer::Answer;
use crate::cache::Bits;
use crate::config::Home;
use crate::explain::Trace;
use crate::hierarchy::{Below, Place};
use crate::kinds::Kind;
use crate::lookup::Asking;
use crate::names::{absolute, within};
use crate::resolve::{Question, Resolver, said};
use crate::table::{CLUSTERSET, Member, server};
use crate::world::World;

/// A cluster set that nobody is in.
const NOWHERE: &str = "";

impl Home {
    /// Where everybody stands who asks here. A member that was removed sees nobody's services.
    pub(crate) fn standing(&self, topology: &Topology) -> Standing {
        let gone = !topology.clusters.contains_key(&self.cluster);
        Standing {
            cluster: Some(self.cluster.as_str().to_owned()),
            cluster_set: gone.then(|| NOWHERE.to_owned()),
            ..Standing::default()
        }
    }
}

/// The member as its own node-local DNS sees it.
#[derive(Debug)]
pub(crate) struct Homestead {
    pub(crate) cluster: ClusterName,
    dns: MemberDns,
    /// Itself under each of its own domains, the longest first: nothing of it is renamed.
    members: Vec<Arc<Member>>,
    /// What is the federation's, while no topology says it.
    federated: Vec<Name>,
    /// The federation's DNS servers, those of its own region first.
    pub(crate) sites: Vec<SocketAddr>,
}

impl Homestead {
    pub(crate) fn new(home: &Home, topology: &Topology) -> Self {
        let known = topology.clusters.get(&home.cluster);
        let mut homestead = Self {
            cluster: home.cluster.clone(),
            dns: home.dns.clone(),
            members: Vec::new(),
            federated: [home.apex.as_str(), CLUSTERSET].iter().filter_map(|n| absolute(n)).collect(),
            sites: sites(topology, known.and_then(|facts| facts.spec.region.as_deref())),
        };
        let facts = homestead.facts(known.map_or(&unknown(&home.cluster), |facts| facts));
        let dns = facts.dns.clone().unwrap_or_default();
        let own = Some(dns.domain.as_str()).filter(|domain| !domain.is_empty());
        let domains =
            own.or(Kind::of(dns.kind).domain).into_iter().chain(dns.aliases.iter().map(|a| a.domain.as_str()));
        for domain in domains {
            let dns = MemberDns { domain: domain.to_owned(), aliases: Vec::new(), ..dns.clone() };
            let facts = ClusterFacts { dns: Some(dns), ..facts.clone() };
            homestead.members.extend(absolute(domain).and_then(|name| Member::called(name, &facts)).map(Arc::new));
        }
        // Stable: its own domain is the first among those that are as long.
        homestead.members.sort_by_key(|member| std::cmp::Reverse(member.rename.native().iter().len()));
        homestead
    }

    /// What the hub says of it, but for where its DNS answers.
    pub(crate) fn facts(&self, facts: &ClusterFacts) -> ClusterFacts {
        let mut dns = facts.dns.clone().unwrap_or_else(|| self.dns.clone());
        if !self.dns.servers.is_empty() {
            (dns.servers, dns.protocol) = (self.dns.servers.clone(), self.dns.protocol);
        }
        ClusterFacts { dns: Some(dns), ..facts.clone() }
    }

    /// A name of its own; `None` for all others, and for a zone of ours inside its domain.
    pub(crate) fn place(&self, name: &Name, zone: Option<&Name>) -> Option<Place<'_>> {
        let member = self.members.iter().find(|member| within(name, member.rename.native()))?;
        let ours = zone.is_some_and(|zone| within(zone, member.rename.native()));
        let top = name == member.rename.native();
        (!ours).then(|| Place::Below(Below { member, native: name.clone(), reverse: false, top }))
    }

    /// A name of a reverse zone that its ranges hold.
    pub(crate) fn place_reverse(&self, name: &Name) -> Option<Place<'_>> {
        let member = self.members.first()?;
        Some(Place::Below(Below { member, native: name.clone(), reverse: true, top: false }))
    }

    /// Any name, before the first topology.
    pub(crate) fn place_alone(&self, name: &Name) -> Place<'_> {
        let federated = self.federated.iter().any(|zone| within(name, zone));
        let other = if federated { Place::Unknown } else { Place::Outside };
        self.place(name, None).unwrap_or(other)
    }
}

/// A member of which nothing is known but its name.
fn unknown(name: &ClusterName) -> ClusterFacts {
    ClusterFacts {
        name: name.clone(),
        spec: ClusterSpec::default(),
        labels: Default::default(),
        cidrs: Default::default(),
        nodes: Vec::new(),
        dns: None,
        ready: false,
        dns_ready: false,
        overlaps: false,
    }
}

/// The DNS servers that the topology names.
fn sites(topology: &Topology, region: Option<&str>) -> Vec<SocketAddr> {
    let mut dns: Vec<_> = topology.sites.values().filter(|site| site.kind == "dns").collect();
    dns.sort_by_key(|site| site.region.is_none() || site.region.as_deref() != region);
    dns.into_iter().flat_map(|site| &site.addresses).filter_map(|at| server(at)).collect()
}

impl Resolver {
    /// Whether a name is asked of the federation's DNS servers: one of a member that is not reached from here, or of a zone that is
    /// signed, for those who want signatures.
    fn is_beyond(&self, home: &Homestead, place: &Place<'_>, dnssec: bool) -> bool {
        match place {
            Place::Below(Below { member, .. }) => {
                let dialer = self.lookups.forwarder().dialer();
                member.name != home.cluster && dialer.route(member.name.as_str()) != Route::Direct
            }
            // Their keys are told to the federation's own servers alone.
            Place::Here(zone) | Place::Beside(zone, _) | Place::Host(zone, _) => {
                let signed = zone.object().is_some_and(|(_, facts)| facts.spec.dnssec.enabled);
                dnssec && signed && zone.keys().is_none()
            }
            _ => false,
        }
    }

    /// What the federation's DNS servers say of a name that is theirs to say; `None` for all others, and for a name of a signed zone
    /// while they can't be asked: what is known here counts then.
    pub(crate) async fn beyond(
        &self,
        world: &World,
        place: &Place<'_>,
        question: &Question,
        name: &Name,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Option<Answer> {
        let home = world.table.home.as_ref().filter(|home| !home.sites.is_empty())?;
        if !self.is_beyond(home, place, question.dnssec) {
            return None;
        }
        let bits = Bits { dnssec: question.dnssec, unchecked: question.unchecked, validated: false };
        let looked = self.lookups.federation(home.sites.clone(), name, question.kind, bits, asking).await;
        let answer = said(looked, "the federation's DNS servers", trace);
        let of_member = matches!(place, Place::Below(_));
        Some(answer).filter(|answer| of_member || answer.rcode != ResponseCode::ServFail)
    }
}

#[cfg(test)]
mod tests;
