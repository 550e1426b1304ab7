//! How a scenario words records, behaviours and queries. The id of a query is by chance.
//!
//! In: words. Out: what they mean, or a sentence on what can't be read.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
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

/// The query of an `ask`.
pub(crate) fn query(step: &Step, name: &str, kind: &str) -> Result<Message, String> {
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
        query.set_edns(edns);
    }
    Ok(query)
}

/// Whether the reply is to this query: id, question octet by octet.
pub(crate) fn echoes(query: &Message, octets: &[u8]) -> Result<(), String> {
    let reply = Message::from_vec(octets).map_err(|e| format!("the reply is no DNS message: {e}"))?;
    let same = reply.metadata.id == query.metadata.id && reply.queries == query.queries;
    let spelt = reply.queries.iter().zip(&query.queries).all(|(r, q)| r.name.eq_case(&q.name));
    if same && spelt { Ok(()) } else { Err("the reply has another id or question".to_owned()) }
}
