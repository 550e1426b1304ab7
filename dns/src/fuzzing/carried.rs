//! What a thread carries over as octets, beside the full way: parsed, translated, settled, encoded.
//!
//! In: a member's reply. Checked: what is carried is what the full way takes, keeps and answers, to each time to live.

use std::sync::LazyLock;

use atoll_api::topology::ClusterFacts;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use serde_json::{Value, json};

use crate::answer::{Answer, Source};
use crate::arpa::reverse;
use crate::cache::Kept;
use crate::forward;
use crate::lookup::translated;
use crate::metrics::Metrics;
use crate::names::{absolute, after_name, below, left_of, lower_octets, octets, of_octets};
use crate::table::Member;
use crate::translate::{Asked, Carried, Swap, carry};
use crate::wire::encode::{self, Encoded};

/// The number of the query.
const ID: u16 = 7;
/// Where a reply's question stands.
const QUESTION: usize = 12;

static METRICS: LazyLock<Metrics> =
    LazyLock::new(|| Metrics::new(&prometheus::Registry::new()).expect("a registry of its own takes them"));

/// Members on whose roads one suffix stands for the other.
static MEMBERS: LazyLock<[Member; 2]> = LazyLock::new(|| {
    let facts = |name: &str, dns: Value| {
        let spec = json!({"environment": "prod", "region": "us"});
        json!({"name": name, "spec": spec, "dns": dns, "cidrs": {"pods": ["10.0.0.0/16", "2001:db8::/32"]}})
    };
    [
        member("dc1.atoll.internal", facts("dc1", json!({"kind": "Generic", "domain": "mesos"}))),
        member("eu.atoll.internal", facts("eu", json!({"kind": "Kubernetes"}))),
    ]
});

fn member(hub: &str, facts: Value) -> Member {
    let facts: Option<ClusterFacts> = serde_json::from_value(facts).ok();
    let made = facts.zip(absolute(hub)).and_then(|(facts, hub)| Member::called(hub, &facts));
    made.filter(|member| member.rename.is_plain()).expect("the text above is a plain member's")
}

/// A member's reply: one octet that says whose, then the reply; what its question asks, a name of the member's or of an address, is what
/// was asked.
///
/// # Panics
/// When what is carried is not what the full way says.
pub fn octets_over(octets: &[u8]) {
    let Some((how, reply)) = octets.split_first() else { return };
    let member = &MEMBERS[usize::from(how & 1)];
    let mut reply = reply.to_vec();
    reply.iter_mut().zip(ID.to_be_bytes()).for_each(|(octet, id)| *octet = id);
    let Some((name, kind)) = question(&reply) else { return };
    match left_of(&name, member.rename.native()) {
        Some(path) => _ = alike(member, &path, kind, &reply),
        None if reverse(&name).is_some_and(|of| of.address().is_some()) => {
            _ = alike_of_address(member, &name, kind, &reply)
        }
        None => {}
    }
}

/// What a reply says that it was asked.
fn question(reply: &[u8]) -> Option<(Name, RecordType)> {
    let end = after_name(reply, QUESTION)?;
    let name = of_octets(reply.get(QUESTION..end)?)?;
    let kind = u16::from_be_bytes(*reply.get(end..)?.first_chunk()?);
    Some((name, RecordType::from(kind)))
}

/// Whether the reply to a question for the name that has `path` left of the member's domain was carried.
///
/// # Panics
/// When it was, and the full way says something else.
pub(crate) fn alike<L: AsRef<[u8]>>(member: &Member, path: &[L], kind: RecordType, reply: &[u8]) -> bool {
    let both = below(path, member.rename.native()).zip(below(path, member.rename.hub()));
    let Some((native, name)) = both.map(|(native, name)| (native.to_lowercase(), name.to_lowercase())) else {
        return false;
    };
    agree(member, (native, &name), kind, reply)
}

/// The same for a question for the name of an address.
///
/// # Panics
/// As [`alike`].
pub(crate) fn alike_of_address(member: &Member, name: &Name, kind: RecordType, reply: &[u8]) -> bool {
    let name = name.to_lowercase();
    agree(member, (name.clone(), &name), kind, reply)
}

fn agree(member: &Member, (native, name): (Name, &Name), kind: RecordType, reply: &[u8]) -> bool {
    let Some(carried) = carried(member, (&native, name), kind, reply) else { return false };
    let (kept, encoded) = full(member, (native, name), kind, reply)
        .unwrap_or_else(|| panic!("the full way does not take it: {reply:?} {:?}", Message::from_vec(reply)));
    assert_eq!(Kept::read(&carried.wire), Some(kept.clone()), "kept");
    assert_eq!((carried.ttl_s, carried.nxdomain), (kept.ttl(), kept.nxdomain));
    let short = Encoded::carried(carried);
    assert_eq!(Message::from_vec(&short.wire).ok(), Message::from_vec(&encoded.wire).ok(), "the reply");
    assert_eq!(ttls(&short), ttls(&encoded), "the times to live");
    assert_eq!((short.life_s, &short.edes), (encoded.life_s, &encoded.edes));
    assert_eq!(thin(&short), thin(&encoded), "without the additional records");
    let facts = |e: &Encoded| (e.facts.question, e.facts.aging, e.facts.turns, e.facts.glue);
    assert_eq!(facts(&short), facts(&encoded));
    true
}

/// From octets to octets.
fn carried(member: &Member, (native, name): (&Name, &Name), kind: RecordType, reply: &[u8]) -> Option<Carried> {
    // As the forwarder does it before.
    if !forward::is_ours(&Query::query(native.clone(), kind), ID, reply) {
        return None;
    }
    let name = lower_octets(name);
    let (hub, domain) = (lower_octets(member.rename.hub()), octets(member.rename.native()));
    let left = (name != lower_octets(native)).then(|| name.len() - hub.len());
    carry(&Swap { name: &name, left, native: &domain, hub: &hub, kind: kind.into() }, reply)
}

/// What the full way comes to: what is kept, and the reply.
fn full(member: &Member, (native, name): (Name, &Name), kind: RecordType, reply: &[u8]) -> Option<(Kept, Encoded)> {
    let message = Message::from_vec(reply).ok()?;
    if !matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return None;
    }
    let soa = || if native == *name { member.reverse_soa(name) } else { member.soa() };
    let asked = Asked { native: native.clone(), qtype: kind, trail: None };
    let kept = translated(member, &asked, &message, soa, &METRICS).ok()?.settled();
    let Kept { answers, authorities, additionals, .. } = kept.clone();
    let rcode = if kept.nxdomain { ResponseCode::NXDomain } else { ResponseCode::NoError };
    let made_of = Answer { sources: vec![Source::Member(member.name.clone())], ..Answer::records(Vec::new()) };
    let answer = Answer { rcode, answers, authorities, additionals, ..made_of };
    let question = encode::Question { name, kind, class: DNSClass::IN };
    Some((kept, encode::encode(&question, &answer, false)))
}

/// What is left without the additional records; `None` where that is no message.
fn thin(encoded: &Encoded) -> Option<Message> {
    let mut octets = encoded.wire.get(..usize::from(encoded.facts.thin))?.to_vec();
    octets.get_mut(10..QUESTION)?.fill(0);
    Message::from_vec(&octets).ok()
}

/// The octets of each time to live.
fn ttls(encoded: &Encoded) -> Vec<&[u8]> {
    let at = |o: &[u8]| usize::from(u16::from_le_bytes([o[0], o[1]]));
    encoded.ttls.chunks_exact(2).map(|o| &encoded.wire[at(o)..at(o) + 4]).collect()
}
