//! From a question to an answer: each link of the chain is placed and answered by whoever it belongs to.
//!
//! In: the world, who asks, the question. Out: an [`Answer`] within the query's [`Budget`]. The chain is followed over members and zones up to
//! [`CHAIN_MAX`] links. Never: asks the control plane; answers a name of a member that is down with NXDOMAIN.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use atoll_api::kinds::Soa;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::answer::{Answer, Reuse, Source, ede};
use crate::arpa::reverse;
use crate::budget::Budget;
use crate::cache::Bits;
use crate::client::Asker;
use crate::explain::Trace;
use crate::federated::{self, Case};
use crate::forward::{Failed, Trail};
use crate::hierarchy::{Below, Place, place};
use crate::hosts;
use crate::lookup::{Asking, Looked, Lookups, Outcome};
use crate::names::show;
use crate::outside::{self, Guard};
use crate::sign::Signatures;
use crate::table::{Member, NEGATIVE_TTL, Table};
use crate::translate::{Asked, CHAIN_MAX, Refused};
use crate::world::World;
use crate::zones::{Found, Zone};
use atoll_api::rdata::{is_dnssec, may_hide_names, targets};

/// How long a stale answer may be kept (RFC 8767 §4: 30 s at most; members come back faster).
const STALE_TTL: u32 = 5;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Lower case.
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    /// RD.
    pub(crate) recursion: bool,
    /// DO.
    pub(crate) dnssec: bool,
    /// The asker's neighbourhood.
    pub(crate) client: u64,
    /// CD.
    pub(crate) unchecked: bool,
    /// Evenly distributed, new for every question.
    pub(crate) dice: u64,
    /// Who forwarded it to us, and how often it was forwarded.
    pub(crate) trail: Option<Trail>,
    /// Asked on behalf of a zone's own name that stands for another.
    pub(crate) flat: bool,
}

/// Answers questions.
pub(crate) struct Resolver {
    pub(crate) world: ArcSwap<World>,
    pub(crate) lookups: Lookups,
    pub(crate) guard: Guard,
    pub(crate) signatures: Arc<Signatures>,
}

impl Resolver {
    /// The answer to `question`, signed where it asks for that and our zones are.
    pub(crate) async fn resolve(&self, world: &World, asker: &Asker, question: &Question, trace: &mut Trace) -> Answer {
        if let Some(via) = self.lookups.forwarder().loops().arrived(&question.name) {
            return looped(&via);
        }
        let mut answer = self.chain(world, asker, question, trace).await;
        if question.dnssec {
            let now_s = jiff::Timestamp::now().as_second() as u32;
            let asked = (&question.name, question.kind);
            crate::sign::complete(&mut answer, &world.table, asked, &self.signatures, now_s);
        }
        answer
    }

    async fn chain(&self, world: &World, asker: &Asker, question: &Question, trace: &mut Trace) -> Answer {
        let asking = Asking { budget: Budget::new(Instant::now()), client: question.client, trail: question.trail };
        let mut whole = self.link(world, asker, question, &question.name, &asking, trace).await;
        let mut seen = vec![question.name.clone()];
        while let Some(next) = whole.next.take() {
            if question.kind == RecordType::CNAME {
                break;
            }
            let next = next.to_lowercase();
            if seen.len() > CHAIN_MAX || seen.contains(&next) {
                return Answer::failure(
                    ede::OTHER,
                    format!("the chain from {} goes round or is too long", show(&question.name)),
                );
            }
            let outside = matches!(place(&world.table, asker, &next, question.kind), Place::Outside);
            if outside && !(asker.recursion && question.recursion && self.lookups.forwarder().has_upstreams()) {
                // The client's own resolver goes on from here.
                break;
            }
            let link = self.link(world, asker, question, &next, &asking, trace).await;
            seen.push(next);
            join(&mut whole, link);
        }
        trace.step("budget", || json!({"questionsAsked": asking.budget.spent()}));
        whole
    }

    /// One link of the chain.
    async fn link(
        &self,
        world: &World,
        asker: &Asker,
        question: &Question,
        name: &Name,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        let place = place(&world.table, asker, name, question.kind);
        trace.place(name, &place);
        if question.kind == RecordType::ANY && !matches!(place, Place::Outside | Place::Unknown) {
            // RFC 8482 §4.2.
            let hinfo = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            return Answer::records(vec![Record::from_rdata(name.clone(), 60, hinfo)]);
        }
        let case = |zone| Case {
            table: &world.table,
            view: world.view(),
            asker,
            zone,
            name,
            kind: question.kind,
            client: question.client,
            dice: question.dice,
        };
        let mut why = Vec::new();
        let (source, reuse) = (source(&place), reuse(&place, &world.table));
        let mut answer = match place {
            Place::Here(zone) => here(
                &world.table,
                zone.seen_by(world.table.clients.view(asker).map(|view| view.name.as_str())),
                name,
                question.kind,
            ),
            Place::Beside(zone, beside) => federated::answer(&case(zone), &beside, &mut why),
            Place::Host(zone, policy) => {
                let mut answer = hosts::answer(&case(zone), policy, &mut why);
                answer.sources.extend(policy.backend.clone().map(Source::Service));
                // RFC 1912 §2.4: no alias where other records stand, as they do at a zone's own name.
                match answer.next.clone().filter(|_| zone.apex() == name) {
                    Some(target) => self.flat(world, asker, question, (zone, name, &target), trace).await,
                    None => answer,
                }
            }
            Place::Below(below) => self.below(world, &below, question, name, asking, trace).await,
            Place::Inner(member) => Answer::no_data(reverse_soa(&world.table, member, name)),
            Place::Nowhere(member) => Answer::no_name(reverse_soa(&world.table, member, name)),
            Place::Unaskable(member, refused) => {
                self.lookups.refused(member, refused);
                Answer::failure(ede::OTHER, format!("cluster `{}`: {refused}", member.name))
            }
            Place::Outside => self.outside(world, asker, question, name, asking, trace).await,
            Place::Unknown => Answer::failure(ede::NOT_READY, "no topology yet: the hub was never heard"),
        };
        answer.sources.extend(source);
        answer.reuse = answer.reuse.and(reuse);
        trace.decided(why, &answer);
        answer
    }

    /// The addresses of `target` as those of a zone's own name, where no alias may stand.
    async fn flat(
        &self,
        world: &World,
        asker: &Asker,
        question: &Question,
        (zone, name, target): (&Zone, &Name, &Name),
        trace: &mut Trace,
    ) -> Answer {
        if question.flat {
            return Answer::failure(ede::OTHER, format!("{} stands for a name that stands for another", show(name)));
        }
        trace.step("flattened", || json!({"target": show(target)}));
        // It is our name: who asks need not be one for whom names of others are looked up.
        let able = Asker { recursion: true, ..asker.clone() };
        let asked = Question { name: target.clone(), recursion: true, flat: true, ..question.clone() };
        let found = Box::pin(self.resolve(world, &able, &asked, trace)).await;
        let ours = found.answers.iter().filter(|r| r.record_type() == question.kind);
        let ours: Vec<Record> = ours.map(|r| Record::from_rdata(name.clone(), r.ttl, r.data.clone())).collect();
        let flat = match found.rcode {
            ResponseCode::NoError if ours.is_empty() => Answer::no_data_in(zone),
            ResponseCode::NoError => Answer { rotates: true, ..Answer::records(ours) },
            _ => Answer::failure(ede::NO_AUTHORITY, format!("{} has no addresses now", show(target))),
        };
        Answer { sources: found.sources, reuse: found.reuse, edes: [flat.edes, found.edes].concat(), ..flat }
    }

    async fn below(
        &self,
        world: &World,
        below: &Below<'_>,
        question: &Question,
        name: &Name,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        let (member, kind) = (below.member, question.kind);
        let soa = if below.reverse { reverse_soa(&world.table, member, name) } else { member.soa() };
        if is_dnssec(kind) {
            return Answer::no_data(soa);
        }
        if may_hide_names(kind) {
            self.lookups.refused(member, Refused::Opaque(kind));
            return Answer::refused(ede::NOT_SUPPORTED, format!("type {kind} holds names that can't be translated"));
        }
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return Answer::refused(ede::PROHIBITED, "no transfers of members");
        }
        if !below.reverse && member.has_never(&below.native) {
            trace.step("completion", || {
                json!("the Kubernetes DNS specification has no such names: the member is not asked")
            });
            return Answer::no_name(soa);
        }
        if let Some(via) = self.lookups.forwarder().returned(question.trail, Some(member)) {
            return looped(&via);
        }
        let asked = Asked { native: below.native.clone(), qtype: kind, trail: question.trail };
        let down = world.down.contains(&member.name);
        let looked = self.lookups.below(member, name, asked, soa, down, asking).await;
        trace.step("forward", || looked_up(member.name.as_str(), &looked, down));
        let (kept, failed) = match looked.outcome {
            Outcome::Fresh(kept) => (kept, None),
            Outcome::Stale(kept, failed) => (kept.aged(Duration::ZERO, Some(STALE_TTL)), Some(failed)),
            Outcome::Failed(failed) => {
                return failure(&failed, &format!("cluster `{}`", member.name));
            }
        };
        // The subtree's own name has names below it: it exists (RFC 8020).
        let nxdomain = kept.nxdomain && !(below.top && kept.answers.is_empty());
        let mut answer = Answer::records(kept.answers);
        answer.rcode = if nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
        (answer.authorities, answer.additionals, answer.next) = (kept.authorities, kept.additionals, kept.next);
        let Some(failed) = failed else { return answer };
        answer.authoritative = false;
        let text = format!("cluster `{}`: {failed}", member.name);
        answer.because(ede::STALE, "answered before, kept").because(code(&failed), text)
    }

    async fn outside(
        &self,
        world: &World,
        asker: &Asker,
        question: &Question,
        name: &Name,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        if !asker.recursion {
            return Answer::refused(ede::PROHIBITED, "not a name of ours, and no recursion for this client");
        }
        if !question.recursion || !self.lookups.forwarder().has_upstreams() {
            return Answer::refused(
                ede::OTHER,
                "not a name of ours, and recursion was not desired or is not configured",
            );
        }
        if let Some(via) = self.lookups.forwarder().returned(question.trail, None) {
            return looped(&via);
        }
        let bits = Bits { dnssec: question.dnssec, unchecked: question.unchecked, validated: true };
        let looked = self.lookups.outside(name, question.kind, bits, asking).await;
        trace.step("forward", || looked_up("upstreams", &looked, false));
        let (mut kept, failed) = match looked.outcome {
            Outcome::Fresh(kept) => (kept, None),
            Outcome::Stale(kept, failed) => (kept.aged(Duration::ZERO, Some(STALE_TTL)), Some(failed)),
            Outcome::Failed(failed) => return failure(&failed, "upstream resolvers"),
        };
        let ours = |n: &Name| !matches!(place(&world.table, asker, n, question.kind), Place::Outside);
        let home = outside::come_home(&mut kept, ours);
        let stripped = self.guard.strip(name, &mut kept, |ip| world.table.owners(ip).is_some());
        trace.step("outside", || json!({"comesHome": home, "addressesStripped": stripped, "validated": kept.secure}));
        let mut answer = Answer { authoritative: false, secure: kept.secure, ..Answer::records(kept.answers) };
        answer.rcode = if kept.nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
        (answer.authorities, answer.additionals, answer.next) = (kept.authorities, kept.additionals, kept.next);
        if stripped > 0 {
            let text = format!("{stripped} addresses of inside networks taken out (dns.rebinding)");
            answer = answer.because(ede::BLOCKED, text);
        }
        match failed {
            None => answer,
            Some(failed) => {
                let stale = if kept.nxdomain { ede::STALE_NXDOMAIN } else { ede::STALE };
                answer.secure = false;
                answer
                    .because(stale, "answered before, kept")
                    .because(code(&failed), format!("upstream resolvers: {failed}"))
            }
        }
    }
}

/// A question of ours that came back: an answer for nobody else.
fn looped(via: &str) -> Answer {
    Answer { reuse: Reuse::Never, ..Answer::failure(ede::OTHER, format!("loop via {via}")) }
}

/// What the answer of a place is made of.
fn source(place: &Place<'_>) -> Option<Source> {
    Some(match place {
        Place::Here(zone) => Source::Zone(zone.apex().clone()),
        Place::Below(Below { member, .. })
        | Place::Unaskable(member, _)
        | Place::Inner(member)
        | Place::Nowhere(member) => Source::Member(member.name.clone()),
        Place::Beside(zone, beside) => match beside.what.service() {
            Some(service) => Source::Service(service.clone()),
            None => Source::Zone(zone.apex().clone()),
        },
        Place::Host(_, policy) => Source::Host(policy.at.clone()?),
        Place::Outside => Source::Upstreams,
        Place::Unknown => return None,
    })
}

/// Who else may get the answer of a place.
fn reuse(place: &Place<'_>, table: &Table) -> Reuse {
    let key = match place {
        Place::Beside(_, beside) => beside.what.service().map(|s| table.policy(s).reuse()),
        Place::Host(_, policy) => Some(policy.reuse()),
        Place::Unknown => return Reuse::Never,
        _ => None,
    };
    key.unwrap_or_default()
}

/// The answer of a zone of ours.
fn here(table: &Table, zone: &Zone, name: &Name, kind: RecordType) -> Answer {
    if zone.is_catalog() && kind != RecordType::SOA {
        return Answer::refused(ede::PROHIBITED, "a catalog is for secondaries");
    }
    match zone.find(name, kind) {
        Found::Records(records) => {
            let additionals = records.iter().filter_map(|r| targets(&r.data)).flat_map(|t| zone.addresses(t)).collect();
            Answer { additionals, ..Answer::records(records) }
        }
        Found::Alias(records, target) => Answer { next: Some(target), ..Answer::records(records) },
        // RFC 6672 §2.2.
        Found::TooLong => Answer { rcode: ResponseCode::YXDomain, ..Answer::records(Vec::new()) },
        Found::Delegated(servers, glue) => {
            let mut answer = Answer::records(Vec::new());
            answer.authoritative = false;
            (answer.authorities, answer.additionals) = (servers, glue);
            answer
        }
        // Members come and go below the apex: what is not there may be in a moment.
        Found::NoData if Some(zone.apex()) == table.apex.as_ref() => Answer::no_data_in(zone),
        Found::NoName if Some(zone.apex()) == table.apex.as_ref() => Answer::no_name_in(zone),
        Found::NoData => Answer::no_data(zone.soa()),
        Found::NoName => Answer::no_name(zone.soa()),
    }
}

/// The SOA of the reverse zone that the range of `member` makes.
fn reverse_soa(table: &Table, member: &Member, name: &Name) -> Record {
    let owners = reverse(name).map(|r| table.owners_of(&r)).unwrap_or_default();
    let net = owners.iter().find(|(_, owner)| **owner == member.name).map(|(net, _)| *net);
    // One label for each octet, or each half of one, and two for `in-addr.arpa` or `ip6.arpa`.
    let labels = net.map_or(2, |net| 2 + usize::from(net.prefix_len() / if net.addr().is_ipv4() { 8 } else { 4 }));
    let zone = name.trim_to(labels.min(name.iter().len()));
    Zone::new(zone, &Soa { negative_ttl: NEGATIVE_TTL, ..Soa::default() }, &[], 1).soa()
}

/// Appends a link to the chain.
fn join(whole: &mut Answer, link: Answer) {
    let reuse = whole.reuse.and(link.reuse);
    if !matches!(link.rcode, ResponseCode::NoError | ResponseCode::NXDomain) {
        let (edes, sources) = (std::mem::take(&mut whole.edes), std::mem::take(&mut whole.sources));
        *whole = Answer { reuse, ..link };
        whole.answers.clear();
        whole.edes.extend(edes);
        whole.sources.extend(sources);
        return;
    }
    whole.reuse = reuse;
    whole.rotates = link.rotates;
    whole.sources.extend(link.sources);
    whole.rcode = link.rcode;
    whole.secure &= link.secure;
    whole.authoritative &= link.authoritative;
    whole.answers.extend(link.answers);
    whole.authorities = link.authorities;
    whole.additionals.extend(link.additionals);
    whole.edes.extend(link.edes);
    whole.next = link.next;
}

/// That `whom` could not tell.
fn failure(failed: &Failed, whom: &str) -> Answer {
    let answer = Answer::failure(code(failed), format!("{whom}: {failed}"));
    // What is used up on our side says nothing about the name.
    let ours = matches!(failed, Failed::Busy | Failed::Exhausted | Failed::Flooded);
    if ours { Answer { reuse: Reuse::Never, ..answer } } else { answer }
}

fn code(failed: &Failed) -> u16 {
    match failed {
        Failed::Network(_) => ede::NETWORK,
        Failed::Unusable(_) | Failed::Busy | Failed::Loop(_) | Failed::Exhausted | Failed::Flooded => ede::OTHER,
        Failed::NoServers | Failed::Code(_) | Failed::TimedOut => ede::NO_AUTHORITY,
    }
}

fn looked_up(whom: &str, looked: &Looked, down: bool) -> Value {
    let outcome = match &looked.outcome {
        Outcome::Fresh(_) => "answered".to_owned(),
        Outcome::Stale(_, failed) => format!("stale: {failed}"),
        Outcome::Failed(failed) => format!("failed: {failed}"),
    };
    json!({"member": whom, "outcome": outcome, "cache": looked.cache, "down": down})
}

/// A resolver that all share.
pub(crate) type Shared = Arc<Resolver>;
