//! A signed zone whole, for transfers: every set with its signature, and a chain of NSEC over all names (RFC 4035 §2.3).
//!
//! In: a zone, the signatures, the time. Out: its records, the SOA left out. Secondaries can't deny as we do at the moment of asking,
//! so they get the chain that answers everything.

use std::sync::Arc;

use hickory_proto::rr::{Name, Record, RecordType};

use super::{Signatures, deny};
use crate::zones::Zone;

/// Every record of `zone` but the SOA itself, signed as they are asked for.
pub(crate) fn signed(zone: Arc<Zone>, signatures: Arc<Signatures>, now_s: u32) -> impl Iterator<Item = Record> + Send {
    let names: Vec<(Name, Vec<RecordType>)> =
        zone.names().into_iter().filter(|(name, types)| !types.is_empty() && !is_glue(&zone, name)).collect();
    let glue: Vec<Record> = zone.records().filter(|r| is_glue(&zone, &r.name)).collect();
    let of = Arc::clone(&zone);
    let last = names.len().saturating_sub(1);
    let firsts: Vec<Name> = names.iter().map(|(name, _)| name.clone()).collect();
    let sets = names.into_iter().enumerate().flat_map(move |(at, (name, types))| {
        let next = if at == last { of.apex().clone() } else { firsts[at + 1].clone() };
        let cut = name != *of.apex() && types.contains(&RecordType::NS);
        let mut records = Vec::new();
        for kind in &types {
            let set = of.set(&name, *kind).unwrap_or_default();
            // At a cut only DS and NSEC are the zone's own (RFC 4035 §2.2).
            let ours = !cut || *kind == RecordType::DS;
            let signed = if ours { signatures.of(&of, &set, now_s) } else { Vec::new() };
            if *kind != RecordType::SOA {
                records.extend(set);
            }
            records.extend(signed);
        }
        let mut kinds: Vec<RecordType> =
            types.into_iter().filter(|t| !cut || matches!(t, RecordType::NS | RecordType::DS)).collect();
        kinds.extend([RecordType::NSEC, RecordType::RRSIG]);
        let nsec = deny::record(&name, &next, kinds, of.soa().ttl);
        records.extend(signatures.of(&of, std::slice::from_ref(&nsec), now_s));
        records.push(nsec);
        records
    });
    sets.chain(glue)
}

/// Below a cut.
fn is_glue(zone: &Zone, name: &Name) -> bool {
    let above = name.base_name();
    name != zone.apex() && above != *zone.apex() && zone.apex().zone_of(&above) && zone.is_cut(&above)
}
