//! Records as objects spell them: what they are, and which are none. Pure.
//!
//! In: name, type and value as text. Out: a record, or a sentence on what is wrong. DNS servers leave out what the hub has found
//! fault with, by the same rule. Sources: RFC 1035 §5.1 (how values are written), ExternalDNS (DNSEndpoint).

use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::kinds::DNSEndpointSpec;
use crate::rdata::map_names;

const TXT_PIECE_MAX: usize = 255;

/// An absolute lower-case name out of text, with or without the last dot.
pub fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?.to_lowercase();
    name.set_fqdn(true);
    Some(name)
}

/// A record out of an object: type and value as written there. Names in values are absolute.
///
/// # Errors
/// What is wrong with it, for people.
pub fn record(owner: Name, kind: &str, ttl: u32, value: &str) -> Result<Record, String> {
    let bad = |why: String| format!("record `{owner} {kind} {value}`: {why}");
    let parsed: RecordType = kind.to_ascii_uppercase().parse().map_err(|_| bad("unknown type".into()))?;
    let data = match parsed {
        RecordType::TXT if !value.trim_start().starts_with('"') => RData::TXT(text(value)),
        RecordType::SOA => return Err(bad("the SOA is the zone's".into())),
        _ => RData::try_from_str(parsed, value).map_err(|e| bad(e.to_string()))?,
    };
    let absolute = |name: &Name| {
        let mut name = name.clone();
        name.set_fqdn(true);
        Ok(name)
    };
    let data = map_names(data, |kind| format!("type {kind} can't be served"), absolute).map_err(bad)?;
    Ok(Record::from_rdata(owner.to_lowercase(), ttl, data))
}

fn text(value: &str) -> TXT {
    let pieces: Vec<&[u8]> = value.as_bytes().chunks(TXT_PIECE_MAX).collect();
    TXT::from_bytes(pieces)
}

/// Every record of a DNSEndpoint that is none, with what is wrong with it. The others are served.
pub fn faults(spec: &DNSEndpointSpec) -> Vec<String> {
    let of_one = |endpoint: &crate::kinds::DnsEndpointRecord| -> Vec<String> {
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
