//! Record data that holds names: which types do, and how each name in them is replaced. Pure.
//!
//! In: record data and a function from name to name. Out: the same data with every name replaced, or a refusal. Types that hold names
//! we can't see are refused, never passed. Sources: RFC 3597 §4, RFC 6672 (DNAME, of which the parser knows only the octets).

pub mod names;
mod strings;
pub mod text;

use hickory_proto::rr::rdata::{self, NULL};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder, NameEncoding};

/// Types with names inside that the parser hands over as octets: MD, MF, MB, MG, MR, MINFO, RP, AFSDB, RT, NSAP-PTR, PX, KX,
/// A6, IPSECKEY, HIP, TALINK, DSYNC, LP, AMTRELAY.
const OPAQUE_NAMES: &[u16] = &[3, 4, 7, 8, 9, 14, 17, 18, 21, 23, 26, 36, 38, 45, 55, 58, 66, 107, 260];
/// Types that the parser hands over as octets and that hold no name: WKS, X25, ISDN, NSAP, GPOS, LOC, EID, NIMLOC, ATMA, SINK, APL,
/// DHCID, NINFO, RKEY, ZONEMD, SPF, UINFO, UID, GID, UNSPEC, NID, L32, L64, EUI48, EUI64, URI, AVC, DOA, RESINFO, WALLET, CLA, IPN, TA
/// (IANA, "Resource Record (RR) TYPEs").
const NAMELESS: &[u16] = &[
    11, 19, 20, 22, 27, 29, 31, 32, 34, 40, 42, 49, 56, 57, 63, 99, 100, 101, 102, 103, 104, 105, 106, 108, 109, 256,
    258, 259, 261, 262, 263, 264, 32768,
];
/// SIG, KEY, NXT, DS, RRSIG, NSEC, DNSKEY, NSEC3, NSEC3PARAM, CDS, CDNSKEY, DLV: what signs names that we rewrite.
const DNSSEC: &[u16] = &[24, 25, 30, 43, 46, 47, 48, 50, 51, 59, 60, 32769];

/// Whether a type belongs to DNSSEC.
pub fn is_dnssec(kind: RecordType) -> bool {
    DNSSEC.contains(&u16::from(kind))
}

/// Whether a type holds names that can't be translated.
pub fn hides_names(kind: RecordType) -> bool {
    OPAQUE_NAMES.contains(&u16::from(kind))
}

/// Whether a type holds names that can't be translated, or may: one that nobody here knows (RFC 3597 §3) is octets to us.
pub fn may_hide_names(kind: RecordType) -> bool {
    let unknown = matches!(kind, RecordType::Unknown(code) if !NAMELESS.contains(&code));
    hides_names(kind) || unknown
}

/// The target of a DNAME.
pub fn dname(data: &RData) -> Option<Name> {
    match data {
        RData::Unknown { code: RecordType::DNAME, rdata } => {
            // RFC 6672 §2.1: the target is not compressed.
            let mut decoder = BinDecoder::new(&rdata.anything);
            let target = Name::read(&mut decoder).ok()?;
            decoder.is_empty().then_some(target)
        }
        _ => None,
    }
}

/// Data of a DNAME; `None` when the name can't be written.
pub fn to_dname(target: &Name) -> Option<RData> {
    let mut octets = Vec::with_capacity(target.len());
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    target.emit(&mut encoder).ok()?;
    Some(RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(octets) })
}

/// Replaces every name in `data`.
///
/// # Errors
/// The first refusal of `rename`; `opaque` where the type holds names that can't be seen.
pub fn map_names<E>(
    data: RData,
    opaque: impl FnOnce(RecordType) -> E,
    mut rename: impl FnMut(&Name) -> Result<Name, E>,
) -> Result<RData, E> {
    Ok(match data {
        RData::CNAME(name) => RData::CNAME(rdata::CNAME(rename(&name.0)?)),
        RData::NS(name) => RData::NS(rdata::NS(rename(&name.0)?)),
        RData::PTR(name) => RData::PTR(rdata::PTR(rename(&name.0)?)),
        RData::ANAME(name) => RData::ANAME(rdata::ANAME(rename(&name.0)?)),
        RData::MX(mut mx) => {
            mx.exchange = rename(&mx.exchange)?;
            RData::MX(mx)
        }
        RData::SRV(mut srv) => {
            srv.target = rename(&srv.target)?;
            RData::SRV(srv)
        }
        RData::NAPTR(mut naptr) => {
            naptr.replacement = rename(&naptr.replacement)?;
            RData::NAPTR(naptr)
        }
        RData::SVCB(mut svcb) => {
            svcb.target_name = rename(&svcb.target_name)?;
            RData::SVCB(svcb)
        }
        RData::HTTPS(mut https) => {
            https.0.target_name = rename(&https.0.target_name)?;
            RData::HTTPS(https)
        }
        RData::SOA(mut soa) => {
            soa.mname = rename(&soa.mname)?;
            soa.rname = rename(&soa.rname)?;
            RData::SOA(soa)
        }
        RData::Unknown { code: RecordType::DNAME, .. } => {
            let Some(target) = dname(&data) else { return Err(opaque(RecordType::DNAME)) };
            let renamed = rename(&target)?;
            match to_dname(&renamed) {
                Some(data) => data,
                None => return Err(opaque(RecordType::DNAME)),
            }
        }
        other if hides_names(other.record_type()) => return Err(opaque(other.record_type())),
        other => other,
    })
}

/// The names that `data` points to and whose addresses a server may add (RFC 1035 §3.3, RFC 2782, RFC 9460).
pub fn targets(data: &RData) -> Option<&Name> {
    match data {
        RData::MX(mx) => Some(&mx.exchange),
        RData::SRV(srv) => Some(&srv.target),
        RData::NS(name) => Some(&name.0),
        RData::SVCB(svcb) => Some(&svcb.target_name),
        RData::HTTPS(https) => Some(&https.0.target_name),
        _ => None,
    }
}
