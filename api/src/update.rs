//! Dynamic updates (RFC 2136): whether the prerequisites hold, and what the zone is afterwards. Pure and total; all or nothing.
//!
//! In: a zone's content in two parts, `fixed` (what people and other programs wrote) and `own` (what updates made), and the sections of
//! a message. Out: `own` as it is afterwards, or a code with a sentence. Updates change what updates made: a message that would delete a
//! fixed record is refused whole. The SOA is the hub's, and so is what signing makes (RFC 3007 §3).

use std::collections::BTreeMap;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordData as _, RecordType};

use crate::rdata::text;

/// Records that updates may make in one zone.
pub const OWN_MAX: usize = 20_000;
/// Records of one message, both sections together.
pub const MESSAGE_RECORDS_MAX: usize = 2_000;

/// A record that updates can't delete.
pub type Fixed = Record;

/// A zone as an update finds it. Owners are lower case.
#[derive(Debug, Clone)]
pub struct Content<'z> {
    /// The zone's name.
    pub apex: &'z Name,
    /// What updates can't delete: SOA and NS of the apex among it.
    pub fixed: &'z [Record],
    /// What updates made.
    pub own: &'z [Record],
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {why}")]
pub struct Refusal {
    /// What the client is told.
    pub code: ResponseCode,
    /// The same for people.
    pub why: String,
}

fn refusal(code: ResponseCode, why: impl Into<String>) -> Refusal {
    Refusal { code, why: why.into() }
}

/// An update message as it came, without its TSIG.
#[derive(Debug, Clone)]
pub struct Sections {
    /// The zone that it names.
    pub zone: Name,
    /// What must hold.
    pub prerequisites: Vec<Record>,
    /// What changes.
    pub updates: Vec<Record>,
}

/// Reads a message.
///
/// # Errors
/// When it is no update of one zone of class IN (RFC 2136 §3.1.1).
pub fn read(message: &[u8]) -> Result<Sections, Refusal> {
    let message = Message::from_vec(message).map_err(|e| refusal(ResponseCode::FormErr, e.to_string()))?;
    match message.queries.as_slice() {
        [zone] if zone.query_type == RecordType::SOA && zone.query_class == DNSClass::IN => Ok(Sections {
            zone: zone.name.to_lowercase(),
            prerequisites: message.answers,
            updates: message.authorities,
        }),
        _ => Err(refusal(ResponseCode::FormErr, "the zone section is not one SOA of class IN")),
    }
}

/// Applies a message.
///
/// # Errors
/// When a prerequisite does not hold, the message makes no sense, or it would change what is not its own. Nothing is changed then.
pub fn apply(zone: &Content<'_>, prerequisites: &[Record], updates: &[Record]) -> Result<Vec<Record>, Refusal> {
    if prerequisites.len() + updates.len() > MESSAGE_RECORDS_MAX {
        return Err(refusal(ResponseCode::Refused, format!("more than {MESSAGE_RECORDS_MAX} records in one message")));
    }
    hold(zone, prerequisites)?;
    for record in updates {
        scan(zone.apex, record)?;
    }
    let mut own = zone.own.to_vec();
    for record in updates {
        change(zone, &mut own, record)?;
    }
    if own.len() > OWN_MAX {
        return Err(refusal(ResponseCode::Refused, format!("more than {OWN_MAX} records made by updates")));
    }
    Ok(own)
}

/// RFC 2136 §3.2: every prerequisite.
fn hold(zone: &Content<'_>, prerequisites: &[Record]) -> Result<(), Refusal> {
    let mut exact: BTreeMap<(Name, u16), Vec<&RData>> = BTreeMap::new();
    let all = || zone.fixed.iter().chain(zone.own);
    for record in prerequisites {
        let (name, kind) = (record.name.to_lowercase(), record.record_type());
        if record.ttl != 0 {
            return Err(refusal(ResponseCode::FormErr, "a prerequisite has a TTL"));
        }
        inside(zone.apex, &name)?;
        let in_use = all().any(|r| r.name == name);
        let there = all().any(|r| r.name == name && r.record_type() == kind);
        let empty = record.data.is_update();
        let (held, code) = match (record.dns_class, kind) {
            (DNSClass::ANY | DNSClass::NONE, _) if !empty => (false, ResponseCode::FormErr),
            (DNSClass::ANY, RecordType::ANY) => (in_use, ResponseCode::NXDomain),
            (DNSClass::ANY, _) => (there, ResponseCode::NXRRSet),
            (DNSClass::NONE, RecordType::ANY) => (!in_use, ResponseCode::YXDomain),
            (DNSClass::NONE, _) => (!there, ResponseCode::YXRRSet),
            (DNSClass::IN, _) if !empty => {
                exact.entry((name.clone(), kind.into())).or_default().push(&record.data);
                (true, ResponseCode::NoError)
            }
            _ => (false, ResponseCode::FormErr),
        };
        if !held {
            return Err(refusal(code, format!("prerequisite on {name} {}", text::word(kind))));
        }
    }
    for ((name, kind), mut wanted) in exact {
        let kind = RecordType::from(kind);
        let mut there: Vec<&RData> =
            all().filter(|r| r.name == name && r.record_type() == kind).map(|r| &r.data).collect();
        let by_text = |a: &&RData, b: &&RData| text::show(a).cmp(&text::show(b));
        wanted.sort_by(by_text);
        wanted.dedup();
        there.sort_by(by_text);
        there.dedup();
        if there != wanted {
            return Err(refusal(ResponseCode::NXRRSet, format!("prerequisite on {name} {}", text::word(kind))));
        }
    }
    Ok(())
}

fn inside(apex: &Name, name: &Name) -> Result<(), Refusal> {
    if apex.zone_of(name) {
        Ok(())
    } else {
        Err(refusal(ResponseCode::NotZone, format!("{name} lies outside the zone")))
    }
}

/// RFC 2136 §3.4.1: whether one update makes sense.
fn scan(apex: &Name, record: &Record) -> Result<(), Refusal> {
    inside(apex, &record.name)?;
    let (kind, empty) = (record.record_type(), record.data.is_update());
    let number = u16::from(kind);
    let meta = matches!(number, 0 | 41 | 128..=254);
    let sense = match record.dns_class {
        DNSClass::IN => !empty && !meta && kind != RecordType::ANY,
        DNSClass::ANY => empty && record.ttl == 0 && !meta,
        DNSClass::NONE => !empty && record.ttl == 0 && !meta && kind != RecordType::ANY,
        _ => false,
    };
    let what = || format!("the update of {} {}", record.name, text::word(kind));
    if !sense {
        return Err(refusal(ResponseCode::FormErr, what()));
    }
    if record.dns_class == DNSClass::IN && kind != RecordType::SOA && !text::is_plain(&record.data) {
        return Err(refusal(ResponseCode::Refused, format!("{}: the type is none that a zone is given", what())));
    }
    Ok(())
}

/// RFC 2136 §3.4.2: one update.
fn change(zone: &Content<'_>, own: &mut Vec<Record>, record: &Record) -> Result<(), Refusal> {
    let (name, kind) = (record.name.to_lowercase(), record.record_type());
    let apex = name == *zone.apex;
    match record.dns_class {
        DNSClass::IN => add(zone, own, &name, record),
        // "all Zone RRs with the same NAME and TYPE are deleted, unless the NAME is the same as ZNAME in which case only those RRs whose
        // TYPE is other than SOA or NS"
        DNSClass::ANY => {
            let any = kind == RecordType::ANY;
            let kept = |r: &Record| apex && matches!(r.record_type(), RecordType::SOA | RecordType::NS);
            delete(zone, own, |r| r.name == name && (any || r.record_type() == kind) && !kept(r))?;
        }
        _ if kind == RecordType::SOA => {}
        _ => {
            // "Deletion of the last NS RR of the zone" is ignored; those at the apex that people wrote are fixed.
            let servers = |own: &[Record]| {
                zone.fixed.iter().chain(own).filter(|r| r.name == name && r.record_type() == RecordType::NS).count()
            };
            if !(apex && kind == RecordType::NS && servers(own) <= 1) {
                delete(zone, own, |r| r.name == name && r.data == record.data)?;
            }
        }
    }
    Ok(())
}

fn add(zone: &Content<'_>, own: &mut Vec<Record>, name: &Name, record: &Record) {
    let kind = record.record_type();
    let is_alias = kind == RecordType::CNAME;
    let others = |r: &Record| r.name == *name && (r.record_type() == RecordType::CNAME) != is_alias;
    let fixed = |r: &Record| r.name == *name && is_alias && r.record_type() == RecordType::CNAME;
    // The SOA's serial is the hub's; an alias and other data don't meet: such an update is ignored.
    if kind == RecordType::SOA || zone.fixed.iter().chain(&*own).any(others) || zone.fixed.iter().any(fixed) {
        return;
    }
    own.retain(|r| !(r.name == *name && (r.data == record.data || (is_alias && r.record_type() == kind))));
    // RFC 2181 §5.2: one TTL a set; the newest counts.
    for held in own.iter_mut().filter(|r| r.name == *name && r.record_type() == kind) {
        held.ttl = record.ttl;
    }
    own.push(Record::from_rdata(name.clone(), record.ttl.min(i32::MAX as u32), record.data.clone()));
}

fn delete(zone: &Content<'_>, own: &mut Vec<Record>, goes: impl Fn(&Record) -> bool) -> Result<(), Refusal> {
    if let Some(held) = zone.fixed.iter().find(|r| goes(r) && r.record_type() != RecordType::SOA) {
        let kind = text::word(held.record_type());
        return Err(refusal(ResponseCode::Refused, format!("{} {kind} was not made by an update", held.name)));
    }
    own.retain(|r| !goes(r));
    Ok(())
}

#[cfg(test)]
mod tests;
