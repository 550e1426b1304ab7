//! The renaming of one member: between its own domains and its subtree below the apex. Pure.
//!
//! In: a name. Out: the same name on the other side, or why it has none there. Native to ours and back is the identity on every name of
//! the member's domains that no alias hides. Never: a native name for one of ours.

use hickory_proto::rr::Name;
use ipnet::IpNet;

use super::Refused;
use crate::arpa;
use crate::names::{absolute, below, left_of, text, within};

/// Kubernetes' own domain, which never leaves, whoever names it.
const NEVER_OUT: &str = "cluster.local";

/// A native domain and what it is called below the apex.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Domain {
    native: Name,
    /// `None`: it has no name of ours, so nothing in it may leave.
    hub: Option<Name>,
    /// The label that stands for it; `None` for the member's own domain.
    alias: Option<String>,
}

/// The renaming of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rename {
    hub: Name,
    apex: Name,
    native: Name,
    /// The longest native domain first.
    domains: Vec<Domain>,
    /// Its addresses.
    ranges: Vec<IpNet>,
    never_out: Option<Name>,
}

impl Rename {
    /// `hub` is the member's subtree, right below the apex; `native` its own domain; `aliases` further ones by their label; `ranges` its
    /// addresses. An alias whose label is taken, or is none, hides its domain.
    pub(crate) fn new(hub: Name, native: Name, aliases: &[(String, Name)], ranges: Vec<IpNet>) -> Self {
        let mut domains = vec![Domain { native: native.clone(), hub: Some(hub.clone()), alias: None }];
        for (label, domain) in aliases {
            let label = label.to_ascii_lowercase();
            let usable = !label.is_empty()
                && !label.contains('.')
                && !domains.iter().any(|d| d.alias.as_deref() == Some(&label) && d.hub.is_some());
            let under = usable.then(|| below(&[label.as_bytes()], &hub)).flatten();
            domains.push(Domain { native: domain.clone(), hub: under, alias: Some(label) });
        }
        // Stable: where two are the same domain, the first says what it is called.
        domains.sort_by_key(|d| std::cmp::Reverse(d.native.iter().len()));
        let apex = hub.base_name();
        Self { hub, apex, native, domains, ranges, never_out: absolute(NEVER_OUT) }
    }

    /// The member's subtree.
    pub(crate) fn hub(&self) -> &Name {
        &self.hub
    }

    /// The member's own domain.
    pub(crate) fn native(&self) -> &Name {
        &self.native
    }

    /// The member's addresses: the names of reverse zones that it speaks for.
    pub(crate) fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// Whether one suffix stands for another and that is all: no further domains, neither of the two around the other or the apex.
    pub(crate) fn is_plain(&self) -> bool {
        self.domains.len() == 1 && !within(&self.native, &self.apex) && !within(&self.apex, &self.native)
    }

    /// Aliases that hide a domain instead of naming it.
    pub(crate) fn hiding(&self) -> impl Iterator<Item = (&str, &Name)> {
        self.domains.iter().filter(|d| d.hub.is_none()).map(|d| (d.alias.as_deref().unwrap_or_default(), &d.native))
    }

    /// What the member calls `name`; `None` when it does not lie in its subtree.
    ///
    /// # Errors
    /// When that would be too long, or a name that the member asks us for.
    pub(crate) fn to_native(&self, name: &Name) -> Result<Option<Name>, Refused> {
        let Some(path) = left_of(name, &self.hub) else { return Ok(None) };
        let aliased = path.split_last().and_then(|(last, rest)| Some((self.alias(last)?, rest)));
        let (domain, path) = match aliased {
            Some((domain, rest)) => (&domain.native, rest),
            None => (&self.native, path.as_slice()),
        };
        let native = below(path, domain).ok_or(Refused::TooLong)?;
        // A domain around our apex: the member's own DNS sends that part of it to us.
        if within(&native, &self.apex) && !within(domain, &self.apex) { Err(Refused::Loop) } else { Ok(Some(native)) }
    }

    /// What `name` of the member is called below the apex; `None` when it lies in none of its domains.
    ///
    /// # Errors
    /// When that would be too long, or mean another name.
    pub(crate) fn to_hub(&self, name: &Name) -> Result<Option<Name>, Refused> {
        let Some((domain, path)) = self.domain_of(name) else { return Ok(None) };
        let Some(hub) = &domain.hub else { return Err(Refused::Hidden) };
        if domain.alias.is_none() && path.last().is_some_and(|last| self.alias(last).is_some()) {
            return Err(Refused::Hidden);
        }
        below(&path, hub).map(Some).ok_or(Refused::TooLong)
    }

    /// `name` as it may leave: translated, or as it is where it is nobody's own.
    ///
    /// # Errors
    /// As [`Self::to_hub`], and when nothing of its domain may leave.
    pub(crate) fn outward(&self, name: &Name) -> Result<Name, Refused> {
        if let Some(ours) = self.to_hub(name)? {
            return Ok(ours);
        }
        let leaks = self.never_out.as_ref().is_some_and(|never| within(name, never));
        if leaks && !within(name, &self.apex) { Err(Refused::Leak) } else { Ok(name.clone()) }
    }

    /// Whether the member may say what is at `name`: one of its domains', or of its addresses'.
    pub(crate) fn speaks_for(&self, name: &Name) -> bool {
        self.domain_of(name).is_some()
            || arpa::reverse(name).is_some_and(|reverse| self.ranges.iter().any(|range| reverse.belongs_to(range)))
    }

    /// Whether a label right below the subtree's own name stands for a further domain.
    pub(crate) fn is_alias(&self, label: &[u8]) -> bool {
        self.alias(label).is_some()
    }

    /// The domain that `name` lies in, and what stands left of it. A name of ours is never native, be it in a domain around the apex.
    fn domain_of<'n>(&self, name: &'n Name) -> Option<(&Domain, Vec<&'n [u8]>)> {
        let (domain, path) = self.domains.iter().find_map(|d| Some((d, left_of(name, &d.native)?)))?;
        let ours = within(name, &self.apex) && !within(&domain.native, &self.apex);
        (!ours).then_some((domain, path))
    }

    fn alias(&self, label: &[u8]) -> Option<&Domain> {
        let label = text(label)?;
        self.domains
            .iter()
            .find(|d| d.hub.is_some() && d.alias.as_deref().is_some_and(|a| a.eq_ignore_ascii_case(label)))
    }
}
