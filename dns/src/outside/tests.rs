//! What upstreams may say: the chain alone, no address of inside networks, nothing of ours.

use atoll_api::rdata::to_dname;
use hickory_proto::op::OpCode;
use hickory_proto::rr::rdata::{A, CNAME, NS, SOA};

use super::*;
use crate::names::absolute;

fn n(text: &str) -> Name {
    absolute(text).unwrap()
}

fn a(owner: &str, ip: &str) -> Record {
    Record::from_rdata(n(owner), 60, RData::A(A(ip.parse().unwrap())))
}

fn cname(owner: &str, target: &str) -> Record {
    Record::from_rdata(n(owner), 60, RData::CNAME(CNAME(n(target))))
}

fn dname(owner: &str, target: &str) -> Record {
    Record::from_rdata(n(owner), 60, to_dname(&n(target)).unwrap())
}

fn soa(owner: &str) -> Record {
    Record::from_rdata(n(owner), 60, RData::SOA(SOA::new(n(owner), n(owner), 1, 2, 3, 4, 5)))
}

fn reply(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.metadata.response_code = code;
    (message.answers, message.authorities) = (answers, authorities);
    message.additionals = vec![a("ns.bank.example", "6.6.6.6")];
    message
}

#[test]
fn an_upstream_speaks_for_the_question_and_its_chain_alone() {
    let ns = Record::from_rdata(n("com"), 60, RData::NS(NS(n("ns.evil.example"))));
    let long: Vec<Record> = (0..12).map(|i| cname(&format!("c{i}.example"), &format!("c{}.example", i + 1))).collect();
    for (what, message, want) in [
        ("an address", reply(ResponseCode::NoError, vec![a("c0.example", "192.0.2.1")], vec![]), "1/0 -0"),
        (
            "with others' names",
            reply(
                ResponseCode::NoError,
                vec![a("c0.example", "192.0.2.1"), a("www.bank.example", "6.6.6.6")],
                vec![ns],
            ),
            "1/0 -2",
        ),
        (
            "a chain",
            reply(ResponseCode::NoError, vec![cname("c0.example", "b.example"), a("b.example", "192.0.2.1")], vec![]),
            "2/0 -0",
        ),
        (
            "a chain in any order",
            reply(ResponseCode::NoError, vec![a("b.example", "192.0.2.1"), cname("c0.example", "b.example")], vec![]),
            "2/0 -0",
        ),
        (
            "half a chain",
            reply(ResponseCode::NoError, vec![cname("c0.example", "b.example")], vec![]),
            "1/0 -0 on b.example.",
        ),
        ("no name", reply(ResponseCode::NXDomain, vec![], vec![soa("example")]), "0/1 -0 no name"),
        ("a stranger's SOA", reply(ResponseCode::NXDomain, vec![], vec![soa("bank.example")]), "0/0 -1 no name"),
        (
            "a chain that comes below one DNAME twice",
            reply(
                ResponseCode::NoError,
                vec![
                    dname("d.example", "e.example"),
                    cname("c0.example", "a.d.example"),
                    cname("a.d.example", "a.e.example"),
                    cname("a.e.example", "b.d.example"),
                    cname("b.d.example", "b.e.example"),
                    a("b.e.example", "192.0.2.1"),
                ],
                vec![],
            ),
            "6/0 -0",
        ),
        ("a chain without end", reply(ResponseCode::NoError, long, vec![]), "a chain of more than 8 links"),
        (
            "a chain that goes round",
            reply(
                ResponseCode::NoError,
                vec![cname("c0.example", "c1.example"), cname("c1.example", "c0.example")],
                vec![],
            ),
            "a chain of more than 8 links",
        ),
    ] {
        let got = match scrub(&n("c0.example"), RecordType::A, false, message) {
            Err(why) => why.to_owned(),
            Ok((kept, dropped)) => {
                let next = kept.next.map(|next| format!(" on {next}")).unwrap_or_default();
                let absent = if kept.nxdomain { " no name" } else { "" };
                assert!(kept.additionals.is_empty(), "{what}");
                format!("{}/{} -{dropped}{next}{absent}", kept.answers.len(), kept.authorities.len())
            }
        };
        assert_eq!(got, want, "{what}");
    }
}

#[test]
fn a_chain_that_reaches_a_name_of_ours_goes_on_there() {
    let answers = vec![cname("a.example", "web.atoll.internal"), a("web.atoll.internal", "6.6.6.6")];
    let mut kept = Kept { answers, secure: true, ..Kept::default() };
    let ours = |name: &Name| within(name, &n("atoll.internal"));
    assert!(come_home(&mut kept, ours));
    assert_eq!((kept.answers.len(), kept.next.clone(), kept.secure), (1, Some(n("web.atoll.internal")), false));
    let mut other = Kept { answers: vec![cname("a.example", "b.example")], ..Kept::default() };
    assert!(!come_home(&mut other, ours) && other.next.is_none());
}

#[test]
fn no_name_outside_leads_inside() {
    let guard = Guard::new(true, vec![n("corp.example")], vec!["10.7.0.0/16".parse().unwrap()]);
    let member = |ip: IpAddr| ip == "203.0.113.9".parse::<IpAddr>().unwrap();
    for (name, ip, stripped) in [
        ("www.example", "198.51.100.1", 0),
        ("www.example", "127.0.0.1", 1),
        ("www.example", "10.0.0.1", 1),
        ("www.example", "10.7.0.1", 0),
        ("www.example", "172.31.255.255", 1),
        ("www.example", "172.32.0.1", 0),
        ("www.example", "192.168.1.1", 1),
        ("www.example", "169.254.169.254", 1),
        ("www.example", "100.64.0.1", 1),
        ("www.example", "0.0.0.0", 1),
        ("www.example", "203.0.113.9", 1),
        ("git.corp.example", "10.0.0.1", 0),
    ] {
        let mut kept = Kept { answers: vec![a(name, ip)], secure: true, ..Kept::default() };
        assert_eq!(guard.strip(&n(name), &mut kept, member), stripped, "{name} {ip}");
        assert_eq!((kept.answers.len(), kept.secure), (1 - stripped, stripped == 0), "{name} {ip}");
        assert_eq!(Guard::new(false, vec![], vec![]).strip(&n(name), &mut kept, member), 0);
    }
    for (ip, stripped) in [("::1", 1), ("::ffff:10.0.0.1", 1), ("fd00::1", 1), ("fe80::1", 1), ("2001:db8::1", 0)] {
        let data = RData::AAAA(ip.parse::<std::net::Ipv6Addr>().unwrap().into());
        let mut kept = Kept { answers: vec![Record::from_rdata(n("a.example"), 1, data)], ..Kept::default() };
        assert_eq!(guard.strip(&n("a.example"), &mut kept, member), stripped, "{ip}");
    }
}
