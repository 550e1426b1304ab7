//! Cases of the OPT record: what is read, what is written, what fits.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::*;
use crate::answer::Answer;
use crate::wire::encode::{Question, encode};
use crate::wire::render::Asked;

/// A message's records as the reply to one who takes `limit` octets.
fn fit(message: &Message, opt: Option<&ReplyOpt<'_>>, limit: usize) -> Vec<u8> {
    let edes = match opt.map(|o| o.edes) {
        Some(Edes::Made(edes)) => edes.to_vec(),
        _ => Vec::new(),
    };
    let rcode = ResponseCode::from(opt.map_or(0, |o| o.rcode_high), 0);
    let answer =
        Answer { rcode, additionals: message.additionals.clone(), edes, ..Answer::records(message.answers.clone()) };
    let asked = &message.queries[0];
    let question = Question { name: asked.name(), kind: asked.query_type(), class: asked.query_class() };
    let encoded = encode(&question, &answer, false);
    let mut out = vec![0; limit];
    let asked = Asked { id: [0, 7], bits: 0, spelled: &[], opt: opt.copied() };
    let length = encoded.body().render(&asked, 0, 0, limit, &mut out).unwrap();
    out.truncate(length);
    out
}

fn query(options: &[(u16, Vec<u8>)]) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name(), RecordType::TXT));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    edns.set_dnssec_ok(true);
    for (code, value) in options {
        edns.options_mut().insert(EdnsOption::Unknown(*code, value.clone()));
    }
    message.set_edns(edns);
    message
}

fn name() -> Name {
    Name::from_ascii("web.shop.svc.atoll.internal.").unwrap()
}

fn reply(texts: usize, text: usize) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.queries = query(&[]).queries;
    let record = |n: usize| Record::from_rdata(name(), 5, RData::TXT(TXT::new(vec![format!("{n:0text$}")])));
    message.answers = (0..texts).map(record).collect();
    message.additionals = vec![Record::from_rdata(name(), 5, RData::A(A::new(192, 0, 2, 1)))];
    message
}

fn edes() -> Vec<Ede> {
    vec![Ede { code: 3, text: "stale".into() }, Ede { code: 22, text: "no replies ".repeat(40) }]
}

#[test]
fn a_querys_opt_is_read() {
    let options =
        [(3, vec![]), (10, vec![1; 8]), (11, vec![]), (12, vec![0; 5]), (8, vec![0, 1, 0, 0]), (65_001, vec![9; 30])];
    let packet = query(&options).to_vec().unwrap();
    let opt = Opt::find(&packet).unwrap().unwrap();
    assert_eq!((opt.version, opt.dnssec, opt.payload), (0, true, 4096));
    assert!(opt.nsid && opt.keepalive && opt.padding);
    assert_eq!((opt.cookie, opt.subnet), (Some(&[1; 8][..]), Some(&[0, 1, 0, 0][..])));
    let mut plain = query(&[]);
    plain.edns = None;
    assert_eq!(Opt::find(&plain.to_vec().unwrap()), Ok(None));
    let mut newer = query(&[]);
    newer.edns.as_mut().unwrap().set_version(1);
    assert_eq!(Opt::find(&newer.to_vec().unwrap()).unwrap().unwrap().version, 1);
}

#[test]
fn an_opt_that_breaks_the_rules_is_malformed() {
    let packet = query(&[(10, vec![1; 8])]).to_vec().unwrap();
    let opt = packet.len() - 23;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = packet.clone();
        change(&mut packet);
        packet
    };
    for (case, packet) in [
        (
            "twice",
            changed(&|p| {
                p.extend_from_within(opt..);
                p[11] = 2;
            }),
        ),
        ("an option that is too long", changed(&|p| p[opt + 14] = 9)),
        (
            "half an option",
            changed(&|p| {
                p.truncate(opt + 13);
                p[opt + 10] = 2;
            }),
        ),
        ("data that are not there", changed(&|p| p.truncate(opt + 12))),
        (
            "of a name",
            changed(&|p| {
                p.splice(opt..=opt, [0xc0, 12]);
            }),
        ),
        ("among the answers", changed(&|p| (p[7], p[11]) = (1, 0))),
        ("no header", vec![0; 11]),
    ] {
        assert_eq!(Opt::find(&packet), Err(Malformed), "{case}");
    }
}

#[test]
fn a_size_is_clamped_both_ways() {
    for (payload, want) in [(0, 512), (511, 512), (512, 512), (1000, 1000), (1232, 1232), (1233, 1232), (65_535, 1232)]
    {
        assert_eq!(limit(Some(&Opt { payload, ..Opt::default() }), false), want, "{payload}");
        assert_eq!(limit(Some(&Opt { payload, ..Opt::default() }), true), 65_535);
    }
    assert_eq!(limit(None, false), 512);
}

#[test]
fn a_replys_opt_is_what_hickory_reads() {
    let edes = edes();
    let opt = ReplyOpt {
        rcode_high: 1,
        dnssec: true,
        cookie: Some([5; COOKIE_BYTES]),
        subnet: Some(&[0, 1, 24, 24, 192, 0, 2]),
        keepalive: Some(100),
        nsid: Some(b"dns-1"),
        edes: Edes::Made(&edes),
        padded: true,
    };
    let octets = fit(&reply(1, 10), Some(&opt), 65_535);
    assert_eq!(octets.len() % 468, 0);
    let message = Message::from_vec(&octets).unwrap();
    let edns = message.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, 1232, true));
    // RFC 6891 §9: 16 is BADVERS here; hickory reads it as BADSIG, of the same number.
    assert_eq!(u16::from(message.metadata.response_code), u16::from(ResponseCode::BADVERS));
    let codes: Vec<u16> = edns.options().as_ref().iter().map(|(code, _)| u16::from(*code)).collect();
    assert_eq!(codes, [10, 8, 11, 3, 15, 15, 12]);
    let texts: Vec<usize> = edns
        .options()
        .as_ref()
        .iter()
        .filter(|(c, _)| u16::from(*c) == 15)
        .map(|(_, o)| usize::from(o.len()))
        .collect();
    assert_eq!(texts, [7, 162], "cut to 160 octets");
    let plain = fit(&reply(1, 10), None, 512);
    assert!(Message::from_vec(&plain).unwrap().edns.is_none());
}

#[test]
fn what_does_not_fit_is_left_out_whole() {
    let edes = edes();
    let opt = ReplyOpt {
        cookie: Some([5; COOKIE_BYTES]),
        edes: Edes::Made(&edes),
        nsid: Some(b"dns-1"),
        ..ReplyOpt::default()
    };
    for (case, texts, text, limit, answers, additionals, tc) in [
        ("all of it", 3, 100, 1232, 3, 1, false),
        ("without the courtesy", 4, 250, 1140, 4, 0, false),
        ("nothing", 9, 200, 1232, 0, 0, true),
        ("nothing in 512", 3, 200, 512, 0, 0, true),
    ] {
        let octets = fit(&reply(texts, text), Some(&opt), limit);
        assert!(octets.len() <= limit, "{case}: {}", octets.len());
        let message = Message::from_vec(&octets).unwrap();
        let got = (message.answers.len(), message.additionals.len(), message.metadata.truncation);
        assert_eq!(got, (answers, additionals, tc), "{case}");
        assert_eq!(message.queries.len(), 1, "{case}");
        let kept = message.edns.unwrap().options().as_ref().iter().any(|(code, _)| u16::from(*code) == 10);
        assert!(kept, "{case}: the cookie stays");
    }
}

#[test]
fn a_slipped_reply_is_the_question_with_tc() {
    let mut octets = fit(&reply(3, 100), Some(&ReplyOpt::default()), 1232);
    truncate(&mut octets, Some(&ReplyOpt { cookie: Some([5; COOKIE_BYTES]), ..ReplyOpt::default() }), 512);
    let message = Message::from_vec(&octets).unwrap();
    assert!(message.metadata.truncation && message.answers.is_empty() && message.additionals.is_empty());
    assert_eq!((message.queries.len(), message.edns.unwrap().options().as_ref().len()), (1, 1));
    let mut header = vec![0; 12];
    truncate(&mut header, None, 512);
    assert_eq!(header[2], 2);
}

proptest! {
    #[test]
    fn any_octets_are_an_opt_or_malformed(packet in prop::collection::vec(any::<u8>(), 0..200), additionals in 0..3_u8) {
        let _ = Opt::find(&packet);
        let mut close = query(&[]).to_vec().unwrap();
        close[11] = additionals;
        close.extend(packet);
        let _ = Opt::find(&close);
        truncate(&mut close, None, 512);
    }

    #[test]
    fn every_reply_fits_and_is_read(
        texts in 0..12_usize, text in 1..200_usize, limit in 512..1400_usize, ede in 0..400_usize, nsid in 0..200_usize, padded: bool,
    ) {
        let edes = [Ede { code: 0, text: "é".repeat(ede) }, Ede { code: 3, text: "x".repeat(ede) }];
        let nsid = vec![1; nsid];
        let opt = ReplyOpt { edes: Edes::Made(&edes), nsid: Some(&nsid), padded, keepalive: Some(9), ..ReplyOpt::default() };
        let octets = fit(&reply(texts, text), Some(&opt), limit);
        prop_assert!(octets.len() <= limit, "{} of {limit}", octets.len());
        let message = Message::from_vec(&octets).unwrap();
        prop_assert!(message.edns.is_some());
        prop_assert_eq!(message.metadata.truncation, texts > 0 && message.answers.is_empty());
    }
}
