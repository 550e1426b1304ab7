//! Replies as members and upstream resolvers send them.
//!
//! In: octets. Checked: no name of a member's own domain gets out; an upstream speaks for nothing but the chain from the question; what is
//! kept of it is the same when it is read again; no inside address is passed on.

use std::sync::LazyLock;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::cache::Kept;
use crate::forward;
use crate::names::{absolute, within};
use crate::outside::{self, Guard};
use crate::translate::{Asked, Rename, reply};
use atoll_api::rdata::map_names;

fn name(text: &str) -> Name {
    absolute(text).unwrap_or_else(Name::root)
}

/// A member with a domain, an alias for another, and addresses.
struct Member {
    natives: [Name; 2],
    question: Name,
    rename: Rename,
}

static MEMBER: LazyLock<Member> = LazyLock::new(|| {
    let (native, alias) = (name("mesos"), name("l4lb.thisdcos.directory"));
    let ranges = "10.0.0.0/8".parse().into_iter().collect();
    let rename = Rename::new(name("dc1.atoll.internal"), native.clone(), &[("l4lb".to_owned(), alias.clone())], ranges);
    Member { natives: [native, alias], question: name("web.marathon.mesos"), rename }
});

/// A member's reply: two octets of the type that was asked for, then the reply.
///
/// # Panics
/// When a name of the member's own domain is in the result.
pub fn translation(octets: &[u8]) {
    let Some((kind, octets)) = octets.split_first_chunk::<2>() else { return };
    let Ok(message) = Message::from_vec(octets) else { return };
    let Member { natives, question, rename } = &*MEMBER;
    let asked_for = message.queries.first().map(|q| &q.name).filter(|n| rename.speaks_for(n));
    let native = asked_for.unwrap_or(question).to_lowercase();
    let asked = Asked { native, qtype: RecordType::from(u16::from_be_bytes(*kind)), trail: None };
    let Ok(said) = reply(rename, &asked, &message) else { return };
    let check = |name: &Name| assert!(!natives.iter().any(|native| within(name, native)), "{name} got out");
    for record in said.answers.into_iter().chain(said.additionals).chain(said.soa) {
        check(&record.name);
        let seen: Result<_, RecordType> = map_names(
            record.data,
            |kind| kind,
            |name| {
                check(name);
                Ok(name.clone())
            },
        );
        assert!(seen.is_ok(), "a type with hidden names got out: {seen:?}");
    }
}

/// What upstreams are asked.
static QUESTIONS: LazyLock<[Name; 2]> = LazyLock::new(|| [name("www.example.org"), name("a.b.example")]);
static OURS: LazyLock<Name> = LazyLock::new(|| name("atoll.internal"));
static GUARD: LazyLock<Guard> = LazyLock::new(|| Guard::new(true, Vec::new(), Vec::new()));

/// An upstream's reply: an octet that says which name is asked for and whether with DO, two of the type, then the reply, whose id counts as
/// the query's.
///
/// # Panics
/// When something is taken that an upstream may not say.
pub fn upstream(octets: &[u8]) {
    let Some(([how, kind @ ..], octets)) = octets.split_first_chunk::<3>() else { return };
    let (name, kind) = (&QUESTIONS[usize::from(how & 1)], RecordType::from(u16::from_be_bytes(*kind)));
    let id = octets.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let Some(message) = forward::judge(&Query::query(name.clone(), kind), id, octets) else { return };
    let Ok((kept, _)) = outside::scrub(name, kind, how & 2 != 0, message) else { return };
    let mut kept = kept.settled();
    on_the_chain(name, &kept);
    if let Some(stored) = kept.octets() {
        let read = Kept::read(&stored);
        assert!(read.is_some(), "what was kept can't be read");
        let sizes = |k: &Kept| (k.nxdomain, k.secure, k.answers.len(), k.authorities.len(), k.next.is_some());
        assert_eq!(read.as_ref().map(sizes), Some(sizes(&kept)), "kept and read");
    }
    outside::come_home(&mut kept, |name| within(name, &OURS));
    assert!(!kept.answers.iter().any(|r| within(&r.name, &OURS)), "an upstream speaks for a name of ours");
    GUARD.strip(name, &mut kept, |_| false);
    let inside = |r: &Record| match &r.data {
        RData::A(a) => a.0.is_private() || a.0.is_loopback() || a.0.is_link_local(),
        RData::AAAA(a) => a.0.is_loopback() || a.0.is_unique_local(),
        _ => false,
    };
    assert!(!kept.answers.iter().any(inside), "an inside address is passed on");
}

/// Every owner is the question, what an alias before it leads to, or a name above (of a DNAME).
fn on_the_chain(question: &Name, kept: &Kept) {
    let mut reached = vec![question.clone()];
    for record in &kept.answers {
        assert!(
            reached.iter().any(|n| *n == record.name || within(n, &record.name)),
            "{} is not on the chain",
            record.name
        );
        if let RData::CNAME(target) = &record.data {
            reached.push(target.0.clone());
        }
    }
}
