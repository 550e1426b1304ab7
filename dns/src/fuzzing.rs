//! Where fuzzers come in: what strangers send, straight to the functions that read it. Nothing else uses it.
//!
//! In: octets. Out: nothing; it must neither panic nor let a native name out.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::forward;
use crate::names::{absolute, within};
use crate::translate::{Asked, Rename, reply};
use atoll_api::rdata::map_names;

/// Translates a member's reply, given as octets, to a question of type `qtype`.
///
/// # Panics
/// When a name of the member's own domain is in the result.
pub fn translate(octets: &[u8], qtype: u16) {
    let names = ["dc1.atoll.internal", "mesos", "l4lb.thisdcos.directory", "web.marathon.mesos"].map(absolute);
    let ([Some(hub), Some(native), Some(alias), Some(question)], Ok(message)) = (names, Message::from_vec(octets))
    else {
        return;
    };
    let natives = [native.clone(), alias.clone()];
    let ranges = "10.0.0.0/8".parse().into_iter().collect();
    let rename = Rename::new(hub, native, &[("l4lb".to_owned(), alias)], ranges);
    let native = message.queries.first().map(|q| q.name.clone()).filter(|n| rename.speaks_for(n)).unwrap_or(question);
    let asked = Asked { native, qtype: RecordType::from(qtype), trail: None };
    let Ok(said) = reply(&rename, &asked, &message) else { return };
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

/// Judges a reply, given as octets, to a query that has the first two of them as its id.
pub fn judge(octets: &[u8]) {
    let id = octets.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    if let Some(name) = absolute("web.shop.svc.cluster.local") {
        forward::judge(&Query::query(name, RecordType::A), id, octets);
    }
}
