//! Reads the annotations of one Ingress into what they wish for, and says of each that isn't carried out why. Pure.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::networking::v1::Ingress;

use super::table::{ANNOTATIONS, Does, protects, row, way};

/// Before the names of annotations.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// An annotation, or a part of an Ingress, that isn't carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The annotation after the prefix, or the field.
    pub what: String,
    /// Why not.
    pub why: String,
    /// How the Gateway API says the same.
    pub way: &'static str,
    /// Whether the paths of the Ingress answer 503 because of it.
    pub closes: bool,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said("its paths answer 503"))
    }
}

impl Finding {
    /// For people; `closed`: what becomes of paths that it protects.
    pub fn said(&self, closed: &str) -> String {
        let closed = if self.closes { format!("; it protects, so {closed}") } else { String::new() };
        format!("`{}`: {}{closed}; the Gateway API way: {}", self.what, self.why, self.way)
    }
}

/// Annotations while they are read.
pub(super) struct Reader {
    written: BTreeMap<String, String>,
    pub(super) findings: Vec<Finding>,
}

impl Reader {
    /// The annotations of an Ingress; what no row honours is refused.
    pub(super) fn of(ingress: &Ingress) -> Self {
        let mut reader = Self { written: written(ingress), findings: Vec::new() };
        let refused = reader
            .written
            .iter()
            .filter(|(name, value)| !is_off(name, value) && row(name).is_none_or(|row| row.does == Does::Refused));
        let why = |name: &str| if row(name).is_some() { "it is not honoured" } else { "it is not known" };
        let found = refused.map(|(name, value)| finding(name, why(name), protects(name, value)));
        reader.findings = found.collect();
        reader
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        debug_assert!(ANNOTATIONS.iter().any(|row| row.name == name), "{name} stands in no row");
        self.written.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// Why an annotation that a row honours isn't, with the value that it has.
    pub(super) fn refuse(&mut self, name: &str, why: impl Into<String>) {
        let closes = protects(name, "");
        self.findings.push(finding(name, why, closes));
    }

    /// Something that is to be known, and opens nothing.
    pub(super) fn note(&mut self, name: &str, why: impl Into<String>) {
        self.findings.push(finding(name, why, false));
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let written = self.text(name)?;
        match written.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Some(true),
            "false" | "off" | "no" | "0" => Some(false),
            _ => {
                self.refuse(name, format!("`{written}` is not true or false"));
                None
            }
        }
    }

    pub(super) fn number<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let written = self.text(name)?;
        let number = written.parse().ok();
        if number.is_none() {
            self.refuse(name, format!("`{written}` is no number that is meant here"));
        }
        number
    }

    /// Seconds, with or without their unit.
    pub(super) fn seconds(&mut self, name: &str) -> Option<u64> {
        let written = self.text(name)?;
        let seconds = written.strip_suffix('s').unwrap_or(&written).parse().ok();
        if seconds.is_none() {
            self.refuse(name, format!("`{written}` is no number of seconds"));
        }
        seconds
    }

    /// Octets, as nginx writes them.
    pub(super) fn size(&mut self, name: &str) -> Option<u64> {
        let written = self.text(name)?.to_ascii_lowercase();
        let (digits, unit) = match written.chars().last() {
            Some('k') => (&written[..written.len() - 1], 1 << 10),
            Some('m') => (&written[..written.len() - 1], 1 << 20),
            Some('g') => (&written[..written.len() - 1], 1 << 30),
            _ => (written.as_str(), 1),
        };
        let size = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        if size.is_none() {
            self.refuse(name, format!("`{written}` is no size"));
        }
        size
    }

    /// A list, by commas.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let written = self.text(name).unwrap_or_default();
        written.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    }
}

/// The annotations of an Ingress, by their names after the prefix.
pub(super) fn written(ingress: &Ingress) -> BTreeMap<String, String> {
    let all = ingress.metadata.annotations.iter().flatten();
    all.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value.trim().to_owned()))).collect()
}

/// Whether an annotation wishes for nothing.
pub(super) fn is_off(name: &str, value: &str) -> bool {
    matches!(value, "" | "false" | "off") && !name.ends_with("-snippet")
}

/// What is said of an annotation.
pub(super) fn finding(name: &str, why: impl Into<String>, closes: bool) -> Finding {
    Finding { what: name.to_owned(), why: why.into(), way: way(name), closes }
}
