//! From a question to an answer: each link of the chain is placed and answered by whoever it belongs to.
//!
//! In: the world, who asks, the question. Out: an [`Answer`] within the query's [`Budget`]. The chain is followed over members and zones up to
//! [`CHAIN_MAX`] links. Never: asks the control plane; answers a name of a member that is down with NXDOMAIN.

mod others;
mod ours;

use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use tokio::time::Instant;

use crate::answer::{Answer, Reuse, Source, ede};
use crate::budget::{Begun, Budget};
use crate::chain::CHAIN_MAX;
use crate::client::Asker;
use crate::explain::Trace;
use crate::federated::{self, Case};
use crate::forward::Trail;
use crate::hierarchy::{Place, place};
use crate::hosts;
use crate::lookup::{Asking, Lookups};
use crate::names::show;
use crate::outside::Guard;
use crate::sign::Signatures;
use crate::world::World;
use crate::zones::Zone;
pub(crate) use others::{failure, said, told};
use ours::{here, reuse, source};

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
    /// What its query has cost already.
    pub(crate) begun: Option<Begun>,
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
        let budget = Budget::of(question.begun, Instant::now());
        let asking = Asking { budget, client: question.client, trail: question.trail };
        let mut answer = self.chain(world, asker, question, &asking, trace).await;
        trace.step("budget", || json!({"questionsAsked": asking.budget.spent()}));
        if question.dnssec {
            let now_s = jiff::Timestamp::now().as_second() as u32;
            let asked = (&question.name, question.kind);
            crate::sign::complete(&mut answer, (&world.table, asker), asked, &self.signatures, now_s);
        }
        answer
    }

    /// The answer as it is decided, within what the query may still cost.
    async fn chain(
        &self,
        world: &World,
        asker: &Asker,
        question: &Question,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        let mut whole = self.link(world, asker, question, &question.name, asking, trace).await;
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
            if outside && self.refuses_outside(asker, question).is_some() {
                // The client's own resolver goes on from here.
                break;
            }
            let link = self.link(world, asker, question, &next, asking, trace).await;
            seen.push(next);
            join(&mut whole, link);
        }
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
        let by_health = matches!(place, Place::Beside(..) | Place::Host(..));
        if let Some(mut answer) = self.beyond(world, &place, question, name, asking, trace).await {
            answer.sources.extend(source);
            answer.reuse = answer.reuse.and(reuse);
            trace.decided(why, &answer);
            return answer;
        }
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
                    Some(target) => self.flat(world, asker, question, (zone, name, &target), asking, trace).await,
                    None => answer,
                }
            }
            Place::Below(below) => self.below(world, &below, question, name, asking, trace).await,
            Place::Inner(member) => Answer::no_data(member.reverse_soa(name)),
            Place::Nowhere(member) => Answer::no_name(member.reverse_soa(name)),
            Place::Unaskable(member, refused) => {
                self.lookups.refused(member, refused);
                Answer::failure(ede::OTHER, format!("cluster `{}`: {refused}", member.name))
            }
            Place::Outside => self.outside(world, asker, question, name, asking, trace).await,
            Place::Unknown => Answer::failure(ede::NOT_READY, "no topology yet: the hub was never heard"),
        };
        if by_health && world.health.trusts_own_eyes() && !answer.answers.is_empty() {
            answer =
                answer.because(ede::OTHER, "the hub is silent: decided by its last word and this server's own probes");
        }
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
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        if question.flat {
            return Answer::failure(ede::OTHER, format!("{} stands for a name that stands for another", show(name)));
        }
        trace.step("flattened", || json!({"target": show(target)}));
        // It is our name: who asks need not be one for whom names of others are looked up.
        let able = Asker { recursion: true, ..asker.clone() };
        let asked = Question { name: target.clone(), recursion: true, flat: true, ..question.clone() };
        let found = Box::pin(self.chain(world, &able, &asked, asking, trace)).await;
        let ours = found.answers.iter().filter(|r| r.record_type() == question.kind);
        let ours: Vec<Record> = ours.map(|r| Record::from_rdata(name.clone(), r.ttl, r.data.clone())).collect();
        let flat = match found.rcode {
            ResponseCode::NoError if ours.is_empty() => Answer::no_data_in(zone),
            ResponseCode::NoError => Answer { rotates: true, ..Answer::records(ours) },
            _ => Answer::failure(ede::NO_AUTHORITY, format!("{} has no addresses now", show(target))),
        };
        Answer { sources: found.sources, reuse: found.reuse, edes: [flat.edes, found.edes].concat(), ..flat }
    }
}

/// A question of ours that came back: an answer for nobody else.
fn looped(via: &str) -> Answer {
    Answer { reuse: Reuse::Never, ..Answer::failure(ede::OTHER, format!("loop via {via}")) }
}

/// Appends a link to the chain.
fn join(whole: &mut Answer, link: Answer) {
    let reuse = whole.reuse.and(link.reuse);
    if !matches!(link.rcode, ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::YXDomain) {
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
    whole.spent_ms = whole.spent_ms.max(link.spent_ms);
    // RFC 1035 §4.1.1: AA "corresponds to the name which matches the query name, or the first owner name in the answer section". That the
    // chain ends at somebody else's server says nothing of its beginning.
    let referral =
        link.rcode == ResponseCode::NoError && link.authorities.iter().any(|r| r.record_type() == RecordType::NS);
    whole.authoritative &= link.authoritative || referral;
    whole.answers.extend(link.answers);
    whole.authorities = link.authorities;
    whole.additionals.extend(link.additionals);
    whole.edes.extend(link.edes);
    whole.next = link.next;
}

/// A resolver that all share.
pub(crate) type Shared = Arc<Resolver>;
