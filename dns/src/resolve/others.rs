//! What others answer: a member for the names below it, upstream resolvers for names that are nobody's of ours.
//!
//! In: where a name belongs, who asks. Out: an [`Answer`]: theirs, what they said before marked stale, or a failure that says why.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};

use super::{Question, Resolver, looped};
use crate::answer::{Answer, Reuse, ede};
use crate::cache::{Bits, Kept};
use crate::client::Asker;
use crate::explain::Trace;
use crate::forward::Failed;
use crate::hierarchy::{Below, Place, place};
use crate::lookup::{Asking, Looked, Outcome};
use crate::outside;
use crate::translate::{Asked, Refused};
use crate::world::World;
use atoll_api::rdata::{is_dnssec, may_hide_names};

/// How long a stale answer may be kept (RFC 8767 §4: 30 s at most; members come back faster).
const STALE_TTL: u32 = 5;
/// How upstreams are called in extended errors.
const UPSTREAMS: &str = "upstream resolvers";

impl Resolver {
    pub(super) async fn below(
        &self,
        world: &World,
        below: &Below<'_>,
        question: &Question,
        name: &Name,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        let (member, kind) = (below.member, question.kind);
        let soa = if below.reverse { member.reverse_soa(name) } else { member.soa() };
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
        let whom = format!("cluster `{}`", member.name);
        let (mut kept, failed) = match found(looked) {
            Ok(found) => found,
            Err(failed) => return failure(&failed, &whom),
        };
        // The subtree's own name has names below it: it exists (RFC 8020).
        kept.nxdomain &= !(below.top && kept.answers.is_empty());
        marked(Answer { authoritative: failed.is_none(), ..told(kept) }, failed, &whom)
    }

    /// Why names that are not ours are not looked up for this question; `None` where they are.
    pub(super) fn refuses_outside(&self, asker: &Asker, question: &Question) -> Option<Answer> {
        if !asker.recursion {
            let text = "not a name of ours, and no recursion for this client";
            return Some(Answer::refused(ede::PROHIBITED, text));
        }
        if !question.recursion || !self.lookups.forwarder().has_upstreams() {
            let text = "not a name of ours, and recursion was not desired or is not configured";
            return Some(Answer::refused(ede::OTHER, text));
        }
        None
    }

    pub(super) async fn outside(
        &self,
        world: &World,
        asker: &Asker,
        question: &Question,
        name: &Name,
        asking: &Asking,
        trace: &mut Trace,
    ) -> Answer {
        if let Some(refusal) = self.refuses_outside(asker, question) {
            return refusal;
        }
        if let Some(via) = self.lookups.forwarder().returned(question.trail, None) {
            return looped(&via);
        }
        let bits = Bits { dnssec: question.dnssec, unchecked: question.unchecked, validated: true };
        let looked = self.lookups.outside(name, question.kind, bits, asking).await;
        trace.step("forward", || looked_up("upstreams", &looked, false));
        let (mut kept, failed) = match found(looked) {
            Ok(found) => found,
            Err(failed) => return failure(&failed, UPSTREAMS),
        };
        let ours = |n: &Name| !matches!(place(&world.table, asker, n, question.kind), Place::Outside);
        let home = outside::come_home(&mut kept, ours);
        let stripped = self.guard.strip(name, &mut kept, |ip| world.table.owners(ip).is_some());
        trace.step("outside", || json!({"comesHome": home, "addressesStripped": stripped, "validated": kept.secure}));
        let mut answer = told(kept);
        if stripped > 0 {
            let text = format!("{stripped} addresses of inside networks taken out (dns.rebinding)");
            answer = answer.because(ede::BLOCKED, text);
        }
        marked(answer, failed, UPSTREAMS)
    }
}

/// What others said, or what was answered before.
pub(crate) fn said(looked: Looked, whom: &str, trace: &mut Trace) -> Answer {
    trace.step("forward", || looked_up(whom, &looked, false));
    match found(looked) {
        Ok((kept, failed)) => marked(told(kept), failed, whom),
        Err(failed) => failure(&failed, whom),
    }
}

/// What there is of a look-up, and why it is nothing newer.
///
/// # Errors
/// Why there is nothing.
fn found(looked: Looked) -> Result<(Kept, Option<Failed>), Failed> {
    match looked.outcome {
        Outcome::Fresh(kept) => Ok((kept, None)),
        Outcome::Stale(kept, failed) => Ok((kept.aged(Duration::ZERO, Some(STALE_TTL)), Some(failed))),
        Outcome::Failed(failed) => Err(failed),
    }
}

/// What others said, as an answer.
pub(crate) fn told(kept: Kept) -> Answer {
    let Kept { nxdomain, secure, answers, authorities, additionals, next, spent_ms } = kept;
    let rcode = if nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
    Answer { rcode, secure, authorities, additionals, next, spent_ms, authoritative: false, ..Answer::records(answers) }
}

/// An answer that was given before says so, and why there is no newer one.
fn marked(answer: Answer, failed: Option<Failed>, whom: &str) -> Answer {
    let Some(failed) = failed else { return answer };
    let stale = if answer.rcode == ResponseCode::NXDomain { ede::STALE_NXDOMAIN } else { ede::STALE };
    let marked = Answer { secure: false, ..answer }.because(stale, "answered before, kept");
    marked.because(code(&failed), format!("{whom}: {failed}"))
}

/// That `whom` could not tell.
pub(crate) fn failure(failed: &Failed, whom: &str) -> Answer {
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
