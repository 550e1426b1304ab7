//! A MaxMind database (City, Country, or one of an operator's own with `region`), whole in memory. Pure.
//!
//! In: the octets of the file. Out: where an address is on earth, or the region that the database itself names, and for how wide a range
//! that holds. A file that is broken anywhere is refused when it is read, so that a look-up meets no broken record. Source: MaxMind DB
//! format specification 2.0.

use std::net::IpAddr;

use bytes::Bytes;
use maxminddb::{LookupResult, PathElement, Reader};

use super::countries;

/// Where something is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Spot {
    /// In this region: the database says so.
    Region(String),
    /// There, in degrees.
    At(f64, f64),
}

/// A database.
pub(crate) struct Mmdb {
    reader: Reader<Bytes>,
}

impl std::fmt::Debug for Mmdb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meta = self.reader.metadata();
        write!(f, "{} of {}", meta.database_type, meta.build_epoch)
    }
}

impl Mmdb {
    /// Reads a file and verifies all of it: about a second for each 100 MB.
    ///
    /// # Errors
    /// What is wrong with it. Another file helps.
    pub(crate) fn read(octets: Bytes) -> Result<Self, String> {
        let reader = Reader::from_source(octets).map_err(|e| e.to_string())?;
        reader.verify().map_err(|e| e.to_string())?;
        Ok(Self { reader })
    }

    /// Where `ip` is, and the length of the range around it of which that is said.
    pub(crate) fn find(&self, ip: IpAddr) -> (Option<Spot>, u8) {
        let Ok(found) = self.reader.lookup(ip) else { return (None, 0) };
        let len = found.network().map_or(0, |net| net.prefix());
        (spot(&found), len)
    }
}

/// The best that a record says, the most exact first.
fn spot(found: &LookupResult<'_, Bytes>) -> Option<Spot> {
    let word = |path: &[PathElement<'_>]| found.decode_path::<String>(path).ok().flatten();
    let degrees = |key: &'static str| {
        found.decode_path::<f64>(&[PathElement::Key("location"), PathElement::Key(key)]).ok().flatten()
    };
    if let Some(region) = word(&[PathElement::Key("region")]) {
        return Some(Spot::Region(region));
    }
    if let (Some(latitude), Some(longitude)) = (degrees("latitude"), degrees("longitude")) {
        return Some(Spot::At(latitude, longitude));
    }
    let code = |of: &'static str, key: &'static str| word(&[PathElement::Key(of), PathElement::Key(key)]);
    let country = code("country", "iso_code")
        .or_else(|| code("registered_country", "iso_code"))
        .or_else(|| word(&[PathElement::Key("country_code")]))
        .or_else(|| word(&[PathElement::Key("country")]));
    let continent = || code("continent", "code").or_else(|| word(&[PathElement::Key("continent")]));
    let at = country.and_then(|c| countries::country(&c)).or_else(|| countries::continent(&continent()?));
    at.map(|(latitude, longitude)| Spot::At(latitude, longitude))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod write;
