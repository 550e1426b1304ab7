//! How a scenario words records, behaviours and queries. The id of a query is by chance.
//!
//! In: words. Out: what they mean, or a sentence on what can't be read.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::rdata::{NULL, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::expect::duration;
use crate::script::Step;
use crate::stage::member::Manner;

/// With the root at its end.
pub(crate) fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

/// `owner ttl TYPE data`; `\#` before data that is hexadecimal (RFC 3597).
pub(crate) fn record(text: &str, apex: &Name) -> Result<Record, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [owner, ttl, kind, data @ ..] = words.as_slice() else { return Err("owner ttl TYPE data".to_owned()) };
    let owner = match owner.strip_suffix('.') {
        Some(_) => Name::from_ascii(owner).map_err(|e| e.to_string())?,
        None if *owner == "@" => apex.clone(),
        None => Name::from_ascii(owner).and_then(|o| o.append_domain(apex)).map_err(|e| e.to_string())?,
    };
    let ttl = ttl.parse().map_err(|_| format!("`{ttl}` is no time to live"))?;
    if let ["\\#", hex @ ..] = data {
        let digits = hex.concat();
        let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|e| e.to_string());
        let octets: Vec<u8> = (0..digits.len() / 2).map(|at| octet(2 * at)).collect::<Result<_, _>>()?;
        let data = RData::Unknown { code: self::kind(kind)?, rdata: NULL::with(octets) };
        return Ok(Record::from_rdata(absolute(owner), ttl, data));
    }
    atoll_api::records::record(absolute(owner), kind, ttl, &data.join(" "))
}

fn kind(text: &str) -> Result<RecordType, String> {
    match text.strip_prefix("TYPE").and_then(|n| n.parse::<u16>().ok()) {
        Some(code) => Ok(RecordType::from(code)),
        None if text == "IXFR" => Ok(RecordType::IXFR),
        None => text.parse().map_err(|_| format!("`{text}` is no type")),
    }
}

pub(crate) fn behaviour(words: &[&str]) -> Result<Manner, String> {
    Ok(match words {
        ["well"] => Manner::Well,
        ["silent"] => Manner::Silent,
        ["truncating"] => Manner::Truncating,
        ["lying"] => Manner::Lying,
        ["spoofed"] => Manner::Spoofed,
        ["wrong-id"] => Manner::WrongId,
        ["wrong-question"] => Manner::WrongQuestion,
        ["garbled"] => Manner::Garbled,
        ["secure"] => Manner::Secure,
        ["bare"] => Manner::Bare,
        ["mesos"] => Manner::Mesos,
        ["unready"] => Manner::Unready,
        ["delay", by] => Manner::Slow(duration(by)?),
        ["code", code] => Manner::Code(match *code {
            "SERVFAIL" => ResponseCode::ServFail,
            "REFUSED" => ResponseCode::Refused,
            "NOTIMP" => ResponseCode::NotImp,
            "FORMERR" => ResponseCode::FormErr,
            "NXDOMAIN" => ResponseCode::NXDomain,
            _ => return Err(format!("no code `{code}`")),
        }),
        _ => return Err(format!("nobody behaves `{}`", words.join(" "))),
    })
}

/// The option of RFC 7873.
pub(crate) const COOKIE: u16 = 10;

/// The octets of a cookie: the client's part alone, too short a one, one that nobody gave, the one that was `given` last.
fn cookie(word: &str, given: &[u8]) -> Result<Vec<u8>, String> {
    Ok(match word {
        "client" => vec![9; 8],
        "short" => vec![9; 5],
        "long" => vec![9; 41],
        "foreign" => vec![9; 24],
        "given" => given.to_vec(),
        _ => return Err(format!("no cookie is called `{word}`")),
    })
}

/// The query of an `ask`; `given` is the cookie that the server gave last.
pub(crate) fn query(step: &Step, name: &str, kind: &str, given: &[u8]) -> Result<Message, String> {
    let flags: Vec<&str> = step.option("flags").unwrap_or("rd").split(',').collect();
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = flags.contains(&"rd");
    query.metadata.checking_disabled = flags.contains(&"cd");
    query.metadata.authentic_data = flags.contains(&"ad");
    let name = absolute(Name::from_ascii(name).map_err(|e| e.to_string())?);
    let mut asked = Query::query(name, self::kind(kind)?);
    if let Some(class) = step.option("class") {
        asked.query_class = class.parse::<DNSClass>().map_err(|e| e.to_string())?;
    }
    query.add_query(asked);
    if step.option("size") != Some("none") {
        let mut edns = Edns::new();
        edns.set_max_payload(step.option("size").map_or(Ok(1232), str::parse).map_err(|_| "size=".to_owned())?);
        edns.set_version(step.option("version").map_or(Ok(0), str::parse).map_err(|_| "version=".to_owned())?);
        edns.set_dnssec_ok(flags.contains(&"do"));
        if let Some(prefix) = step.option("ecs") {
            let subnet: ClientSubnet = prefix.parse().map_err(|_| format!("`{prefix}` is no prefix"))?;
            edns.options_mut().insert(EdnsOption::Subnet(subnet));
        }
        if let Some(cookie) = step.option("cookie") {
            edns.options_mut().insert(EdnsOption::Unknown(COOKIE, self::cookie(cookie, given)?));
        }
        query.set_edns(edns);
    }
    Ok(query)
}

/// A name with the root at its end.
pub(crate) fn name(text: &str) -> Result<Name, String> {
    Name::from_ascii(text).map(absolute).map_err(|e| format!("`{text}`: {e}"))
}

/// The query of a `transfer`; `serial=` is what the client has.
pub(crate) fn transfer(step: &Step, zone: &str, kind: &str) -> Result<Message, String> {
    let apex = name(zone)?;
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.add_query(Query::query(apex.clone(), self::kind(kind)?));
    if let Some(serial) = step.option("serial") {
        let serial = serial.parse().map_err(|_| format!("`{serial}` is no serial"))?;
        // RFC 1995 §3: the SOA of the client's version.
        let soa = SOA::new(apex.clone(), apex.clone(), serial, 0, 0, 0, 0);
        query.add_authority(Record::from_rdata(apex, 0, RData::SOA(soa)));
    }
    Ok(query)
}

/// The message of an `update`; what is no part of it goes to `rest`.
pub(crate) fn update(step: &Step, zone: &str, way: &str, rest: &mut Vec<(usize, String)>) -> Result<Message, String> {
    let apex = name(zone)?;
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Update);
    let mut asked = Query::query(apex.clone(), RecordType::SOA);
    if let Some(class) = step.option("class") {
        asked.query_class = class.parse::<DNSClass>().map_err(|e| e.to_string())?;
    }
    message.add_query(asked);
    for (line, text) in &step.block {
        let text = text.replace("{way}", way);
        let words: Vec<&str> = text.split_whitespace().collect();
        // Of a class, without or with data (RFC 2136 §2.4, §2.5).
        let bare = |owner: &str, kind: RecordType, class: DNSClass| {
            let mut record = Record::update0(name(owner)?, 0, kind);
            record.dns_class = class;
            Ok::<_, String>(record)
        };
        let full = |owner: &str, ttl: &str, rest: &[&str], class: DNSClass| {
            let mut record = record(&format!("{owner}. {ttl} {}", rest.join(" ")), &apex)?;
            record.dns_class = class;
            Ok::<_, String>(record)
        };
        match words.as_slice() {
            ["need", "not", owner] => drop(message.add_answer(bare(owner, RecordType::ANY, DNSClass::NONE)?)),
            ["need", "not", owner, kind] => drop(message.add_answer(bare(owner, self::kind(kind)?, DNSClass::NONE)?)),
            ["need", owner] => drop(message.add_answer(bare(owner, RecordType::ANY, DNSClass::ANY)?)),
            ["need", owner, kind] => drop(message.add_answer(bare(owner, self::kind(kind)?, DNSClass::ANY)?)),
            ["need", owner, data @ ..] => drop(message.add_answer(full(owner, "0", data, DNSClass::IN)?)),
            ["add", owner, ttl, data @ ..] => drop(message.add_authority(full(owner, ttl, data, DNSClass::IN)?)),
            ["delete", owner] => drop(message.add_authority(bare(owner, RecordType::ANY, DNSClass::ANY)?)),
            ["delete", owner, kind] => drop(message.add_authority(bare(owner, self::kind(kind)?, DNSClass::ANY)?)),
            ["delete", owner, data @ ..] => drop(message.add_authority(full(owner, "0", data, DNSClass::NONE)?)),
            _ => rest.push((*line, text)),
        }
    }
    Ok(message)
}

/// Whether the reply is to this query: id, question octet by octet.
pub(crate) fn echoes(query: &Message, octets: &[u8]) -> Result<(), String> {
    let reply = Message::from_vec(octets).map_err(|e| format!("the reply is no DNS message: {e}"))?;
    let same = reply.metadata.id == query.metadata.id && reply.queries == query.queries;
    let spelt = reply.queries.iter().zip(&query.queries).all(|(r, q)| r.name.eq_case(&q.name));
    if same && spelt { Ok(()) } else { Err("the reply has another id or question".to_owned()) }
}
