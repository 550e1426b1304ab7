//! Records as objects spell them: what they are, and which are none. Pure.
//!
//! In: name, type and value as text. Out: a record, or a sentence on what is wrong. DNS servers leave out what the hub has found
//! fault with, by the same rule. Sources: RFC 1035 §5.1 (how values are written), ExternalDNS (DNSEndpoint).

use std::collections::{BTreeMap, HashMap};

use hickory_proto::rr::rdata::{NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::kinds::{DNSEndpointSpec, DnsEndpointRecord, Soa, ZoneSpec};
use crate::rdata::{names, text};
use crate::zonefile::{self, TTL_DEFAULT, TTL_MAX};

const TXT_PIECE_MAX: usize = 255;

/// An absolute lower-case name out of text, with or without the last dot.
pub fn absolute(text: &str) -> Option<Name> {
    let mut name = names::parse(text).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

/// A record out of an object: type and value as written there. Names in values are absolute.
///
/// # Errors
/// What is wrong with it, for people.
pub fn record(owner: Name, kind: &str, ttl: u32, value: &str) -> Result<Record, String> {
    let bad = |why: String| format!("record `{owner} {kind} {value}`: {why}");
    let parsed = text::kind(kind).ok_or_else(|| bad("unknown type".into()))?;
    let is_raw = parsed == RecordType::TXT && !value.trim_start().starts_with(['"', '\\']);
    let data = match parsed {
        RecordType::TXT if is_raw => RData::TXT(pieces(value)),
        RecordType::SOA => return Err(bad("the SOA is the zone's".into())),
        _ => text::parse(parsed, value, &Name::root()).map_err(bad)?,
    };
    Ok(Record::from_rdata(owner.to_lowercase(), ttl, data))
}

fn pieces(value: &str) -> TXT {
    let pieces: Vec<&[u8]> = value.as_bytes().chunks(TXT_PIECE_MAX).collect();
    TXT::from_bytes(pieces)
}

/// SOA and name servers of a zone: as written, else `ns.<apex>` and `hostmaster.<apex>`. `written` are its records.
pub fn head(apex: &Name, soa: &Soa, ns: &[String], serial: u32, written: &[Record]) -> Vec<Record> {
    let below = |label: &str| Name::from_ascii(label).and_then(|n| n.append_domain(apex)).ok();
    let mut servers: Vec<Name> = ns.iter().filter_map(|n| absolute(n)).collect();
    if servers.is_empty() && !written.iter().any(|r| r.record_type() == RecordType::NS && r.name == *apex) {
        servers.extend(below("ns"));
    }
    let name = |text: &Option<String>| text.as_deref().and_then(absolute);
    let mname = name(&soa.mname).or_else(|| servers.first().cloned()).unwrap_or_else(|| apex.clone());
    let rname = name(&soa.rname).or_else(|| below("hostmaster")).unwrap_or_else(|| apex.clone());
    // RFC 2308 §5: a negative answer is kept no longer than the smaller of the SOA's TTL and its minimum.
    let data = SOA::new(mname, rname, serial, 3600, 600, 604_800, soa.negative_ttl);
    let mut head = vec![Record::from_rdata(apex.clone(), soa.negative_ttl, RData::SOA(data))];
    head.extend(servers.into_iter().map(|s| Record::from_rdata(apex.clone(), TTL_DEFAULT, RData::NS(NS(s)))));
    head
}

/// A zone's own records and what is wrong with the others.
#[derive(Debug, Default)]
pub struct Own {
    /// For everybody.
    pub records: Vec<Record>,
    /// For the askers of a view, in place of those of the same name and type.
    pub views: BTreeMap<String, Vec<Record>>,
    /// What was left out, and why.
    pub faults: Vec<String>,
}

/// What a Zone and its zone file say; what is wrong is left out alone.
pub fn own(spec: &ZoneSpec, file: Option<&str>) -> Own {
    let Some(apex) = absolute(&spec.apex) else {
        return Own { faults: vec![format!("apex `{}` is no name", spec.apex)], ..Own::default() };
    };
    let mut own = Own::default();
    let mut written = Vec::new();
    if let Some(text) = file {
        let parsed = zonefile::parse(text, &apex);
        own.faults.extend(parsed.faults.into_iter().map(|fault| format!("zone file {fault}")));
        written.extend(parsed.records);
    }
    written.extend(sets(&spec.records, &apex, &mut own.faults));
    own.records = lawful(&apex, written, &mut own.faults);
    for (view, records) in &spec.views {
        let mut faults = Vec::new();
        let records = sets(records, &apex, &mut faults);
        let records = lawful(&apex, records, &mut faults);
        own.faults.extend(faults.into_iter().map(|fault| format!("view `{view}`: {fault}")));
        own.views.insert(view.clone(), records);
    }
    own
}

fn sets(written: &[crate::kinds::Record], apex: &Name, faults: &mut Vec<String>) -> Vec<Record> {
    let mut found = Vec::new();
    for set in written {
        let owner = match set.name.as_str() {
            "@" | "" => Some(apex.clone()),
            relative => absolute(relative).and_then(|n| n.append_domain(apex).ok()),
        };
        let Some(mut owner) = owner else {
            faults.push(format!("`{}` is no name", set.name));
            continue;
        };
        owner.set_fqdn(true);
        if set.values.is_empty() {
            faults.push(format!("record `{owner} {}`: no values", set.record_type));
        }
        for value in &set.values {
            match record(owner.clone(), &set.record_type, set.ttl.unwrap_or(TTL_DEFAULT).min(TTL_MAX), value) {
                Ok(record) => found.push(record),
                Err(fault) => faults.push(fault),
            }
        }
    }
    found
}

/// Without the records that may not stand beside those before them.
fn lawful(apex: &Name, records: Vec<Record>, faults: &mut Vec<String>) -> Vec<Record> {
    let mut alias: HashMap<Name, bool> = HashMap::from([(apex.clone(), false)]);
    let mut kept = Vec::with_capacity(records.len());
    for record in records {
        let is_alias = record.record_type() == RecordType::CNAME;
        let at =
            |why: &str| format!("record `{} {} {}`: {why}", record.name, text::word(record.record_type()), record.data);
        match alias.get(&record.name) {
            _ if !apex.zone_of(&record.name) => faults.push(at("lies outside the zone")),
            // RFC 1034 §3.6.2: "If a CNAME RR is present at a node, no other data should be present".
            Some(true) if is_alias => faults.push(at("the name is an alias already")),
            Some(true) => faults.push(at("the name is an alias, which has no other data")),
            Some(false) if is_alias => faults.push(at("the name has other data, so it can't be an alias")),
            _ => {
                alias.insert(record.name.clone(), is_alias);
                kept.push(record);
            }
        }
    }
    kept
}

/// The records of DNSEndpoints; what is wrong is left out alone and told to `fault`.
pub fn of_endpoints(endpoints: &[DnsEndpointRecord], mut fault: impl FnMut(String)) -> Vec<Record> {
    let mut found = Vec::new();
    for set in endpoints {
        let ttl =
            set.record_ttl.and_then(|t| u32::try_from(t).ok()).filter(|t| *t > 0).unwrap_or(TTL_DEFAULT).min(TTL_MAX);
        let Some(owner) = absolute(&set.dns_name) else {
            fault(format!("`{}` is no name", set.dns_name));
            continue;
        };
        for value in &set.targets {
            match record(owner.clone(), &set.record_type, ttl, value) {
                Ok(record) => found.push(record),
                Err(why) => fault(why),
            }
        }
    }
    found
}

/// Records as a DNSEndpoint holds them: [`of_endpoints`] gives the same again.
pub fn to_endpoints(records: &[Record]) -> Vec<DnsEndpointRecord> {
    let mut sets: BTreeMap<(String, String), DnsEndpointRecord> = BTreeMap::new();
    for record in records {
        let (name, kind) = (names::show(&record.name), text::word(record.record_type()));
        let set = sets.entry((name.clone(), kind.clone())).or_insert_with(|| DnsEndpointRecord {
            dns_name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
            record_type: kind,
            ..DnsEndpointRecord::default()
        });
        set.record_ttl = Some(i64::from(record.ttl.max(1)));
        set.targets.push(text::show(&record.data));
    }
    sets.into_values().collect()
}

/// Every record of a DNSEndpoint that is none, with what is wrong with it. The others are served.
pub fn faults(spec: &DNSEndpointSpec) -> Vec<String> {
    let of_one = |endpoint: &DnsEndpointRecord| -> Vec<String> {
        let Some(owner) = absolute(&endpoint.dns_name) else {
            return vec![format!("`{}` is no name", endpoint.dns_name)];
        };
        if endpoint.targets.is_empty() {
            return vec![format!("record `{owner} {}`: no targets", endpoint.record_type)];
        }
        let records = endpoint.targets.iter().map(|value| record(owner.clone(), &endpoint.record_type, 0, value));
        records.filter_map(Result::err).collect()
    };
    spec.endpoints.iter().flat_map(of_one).collect()
}

/// The names of a DNSEndpoint that lie in none of the zones: they are answered, but nothing around them.
pub fn outside(spec: &DNSEndpointSpec, apexes: &[&str]) -> Vec<String> {
    let zones: Vec<Name> = apexes.iter().filter_map(|apex| absolute(apex)).collect();
    let names = spec.endpoints.iter().filter_map(|endpoint| absolute(&endpoint.dns_name));
    let mut strangers: Vec<String> =
        names.filter(|name| !zones.iter().any(|zone| zone.zone_of(name))).map(|name| name.to_ascii()).collect();
    strangers.dedup();
    strangers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_that_is_none_is_named_and_the_others_are_not() {
        let spec: DNSEndpointSpec = serde_json::from_value(json!({"endpoints": [
            {"dnsName": "a.example.com", "recordType": "A", "targets": ["192.0.2.1", "1.2.3"]},
            {"dnsName": "b.example.com", "recordType": "AAAA", "targets": ["192.0.2.1"]},
            {"dnsName": "c.example.com", "recordType": "NONSENSE", "targets": ["x"]},
            {"dnsName": "d..example.com", "recordType": "A", "targets": ["192.0.2.1"]},
            {"dnsName": "e.example.com", "recordType": "A", "targets": []},
            {"dnsName": "f.example.com", "recordType": "TXT", "targets": ["hello world"]},
            {"dnsName": "G.Example.NET.", "recordType": "CNAME", "targets": ["a.example.com"]},
        ]}))
        .unwrap();
        let faults = faults(&spec);
        for (fault, says) in faults.iter().zip([
            "record `a.example.com. A 1.2.3`",
            "record `b.example.com. AAAA 192.0.2.1`",
            "record `c.example.com. NONSENSE x`: unknown type",
            "`d..example.com` is no name",
            "record `e.example.com. A`: no targets",
        ]) {
            assert!(fault.starts_with(says), "{fault}");
        }
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert_eq!(outside(&spec, &["example.com"]), ["g.example.net."]);
        assert_eq!(outside(&spec, &["Example.com", "example.net."]), [""; 0]);
    }
}
