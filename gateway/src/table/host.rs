//! Host names of listeners and routes: exact or `*.` and a suffix, how they intersect, and the map that finds the most specific
//! ones first. Pure. Source: Gateway API, `HTTPRoute.spec.hostnames` and `Listener.hostname`; Kubernetes, Ingress v1, `IngressRule.host`.

use std::collections::HashMap;
use std::sync::Arc;

/// A host name as listeners and routes write it, in lower case. A clone shares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Host {
    /// This name.
    Exact(Arc<str>),
    /// All names below this suffix, however deep; not the suffix itself.
    Below(Arc<str>),
    /// All names of one label before this suffix, as Ingresses mean it.
    Child(Arc<str>),
}

impl Host {
    /// Parses a name of an object; the CRDs have checked its grammar.
    pub(crate) fn parse(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(suffix) => Self::Below(suffix.into()),
            None => Self::Exact(name.into()),
        }
    }

    /// Parses a name of an Ingress: a wildcard stands for one label.
    pub(crate) fn of_ingress(name: &str) -> Self {
        match Self::parse(name) {
            Self::Below(suffix) => Self::Child(suffix),
            exact => exact,
        }
    }

    /// As who claims it keeps others from it: no two wildcards of one suffix.
    pub(crate) fn claimed(&self) -> Self {
        match self {
            Self::Child(suffix) => Self::Below(Arc::clone(suffix)),
            as_it_is => as_it_is.clone(),
        }
    }

    /// Whether a request for `host` is meant.
    pub(crate) fn covers(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(suffix) => is_below(host, suffix),
            Self::Child(suffix) => parent(host).is_some_and(|parent| *parent == **suffix),
        }
    }

    /// Those names that both mean, as one; nothing where they have none in common.
    pub(crate) fn meet<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Self::Exact(name), wide) => wide.covers(name).then_some(self),
            (wide, Self::Exact(name)) => wide.covers(name).then_some(other),
            (Self::Child(a), Self::Below(b)) if a == b => Some(self),
            (Self::Below(a), Self::Child(b)) if a == b => Some(other),
            (Self::Below(a) | Self::Child(a), Self::Below(b)) if is_below(a, b) => Some(self),
            (Self::Below(a), Self::Below(b) | Self::Child(b)) if is_below(b, a) => Some(other),
            _ => None,
        }
    }

    /// How specific it is: exact before wildcard, then the longer.
    pub(crate) fn rank(host: Option<&Self>) -> (u8, usize) {
        match host {
            Some(Self::Exact(name)) => (2, name.len()),
            Some(Self::Below(suffix) | Self::Child(suffix)) => (1, suffix.len()),
            None => (0, 0),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) | Self::Child(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// The name without its first label, which is not empty.
fn parent(host: &str) -> Option<&str> {
    host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent)
}

/// Values by host name, found by the names of requests. A clone shares the names.
#[derive(Debug, Clone)]
pub(crate) struct HostMap<T> {
    exact: HashMap<Arc<str>, T>,
    child: HashMap<Arc<str>, T>,
    below: HashMap<Arc<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), child: HashMap::new(), below: HashMap::new(), any: None }
    }
}

impl<T> HostMap<T> {
    /// The value of exactly this name, made if absent; no name: of all others.
    pub(crate) fn entry(&mut self, host: Option<&Host>, make: impl FnOnce() -> T) -> &mut T {
        match host {
            Some(Host::Exact(name)) => self.exact.entry(Arc::clone(name)).or_insert_with(make),
            Some(Host::Child(suffix)) => self.child.entry(Arc::clone(suffix)).or_insert_with(make),
            Some(Host::Below(suffix)) => self.below.entry(Arc::clone(suffix)).or_insert_with(make),
            None => self.any.get_or_insert_with(make),
        }
    }

    /// The value of exactly this name.
    pub(crate) fn get(&self, host: Option<&Host>) -> Option<&T> {
        match host {
            Some(Host::Exact(name)) => self.exact.get(name),
            Some(Host::Child(suffix)) => self.child.get(suffix),
            Some(Host::Below(suffix)) => self.below.get(suffix),
            None => self.any.as_ref(),
        }
    }

    /// The value of exactly this name, to be changed.
    pub(crate) fn get_mut(&mut self, host: Option<&Host>) -> Option<&mut T> {
        match host {
            Some(Host::Exact(name)) => self.exact.get_mut(name),
            Some(Host::Child(suffix)) => self.child.get_mut(suffix),
            Some(Host::Below(suffix)) => self.below.get_mut(suffix),
            None => self.any.as_mut(),
        }
    }

    /// Takes the value of exactly this name away.
    pub(crate) fn remove(&mut self, host: Option<&Host>) -> Option<T> {
        match host {
            Some(Host::Exact(name)) => self.exact.remove(name),
            Some(Host::Child(suffix)) => self.child.remove(suffix),
            Some(Host::Below(suffix)) => self.below.remove(suffix),
            None => self.any.take(),
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.child.is_empty() && self.below.is_empty() && self.any.is_none()
    }

    /// The same names with other values.
    pub(crate) fn map<U>(&self, of: impl Fn(&T) -> U) -> HostMap<U> {
        let all = |map: &HashMap<Arc<str>, T>| map.iter().map(|(name, value)| (Arc::clone(name), of(value))).collect();
        let (exact, child, below) = (all(&self.exact), all(&self.child), all(&self.below));
        HostMap { exact, child, below, any: self.any.as_ref().map(&of) }
    }

    /// Every value whose name covers `host`, the most specific first.
    pub(crate) fn levels<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a T> {
        let suffixes = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        let child = parent(host).and_then(|parent| self.child.get(parent));
        let exact = self.exact.get(host).into_iter().chain(child);
        exact.chain(suffixes.filter_map(|s| self.below.get(s))).chain(self.any.as_ref())
    }

    /// The value of the most specific name that covers `host`.
    pub(crate) fn find<'a>(&'a self, host: &'a str) -> Option<&'a T> {
        self.levels(host).next()
    }

    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.child.values()).chain(self.below.values()).chain(self.any.as_ref())
    }

    /// The names: `*.` and a suffix for all below it, `*` for all others.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let below = self.child.keys().chain(self.below.keys()).map(|suffix| format!("*.{suffix}"));
        self.exact.keys().map(ToString::to_string).chain(below).chain(self.any.as_ref().map(|_| "*".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_meet_in_the_more_specific_one() {
        for (a, b, both) in [
            ("a.example", "a.example", "a.example"),
            ("*.example", "a.example", "a.example"),
            ("a.example", "*.example", "a.example"),
            ("*.example", "x.y.example", "x.y.example"),
            ("*.example", "*.y.example", "*.y.example"),
            ("*.example", "example", ""),
            ("*.example", "badexample", ""),
            ("a.example", "b.example", ""),
            ("*.a.example", "*.b.example", ""),
            ("A.Example", "a.example", "a.example"),
        ] {
            let (x, y) = (Host::parse(a), Host::parse(b));
            assert_eq!(x.meet(&y).map(ToString::to_string).unwrap_or_default(), both, "{a} and {b}");
        }
    }

    #[test]
    fn a_wildcard_of_an_ingress_stands_for_one_label() {
        let host = Host::of_ingress("*.Example");
        for (name, is_meant) in [("a.example", true), ("x.y.example", false), ("example", false), (".example", false)] {
            assert_eq!(host.covers(name), is_meant, "{name}");
        }
        for (other, both) in [
            (Host::parse("a.example"), "a.example"),
            (Host::parse("x.y.example"), ""),
            (Host::parse("*.example"), "*.example"),
            (Host::parse("*.y.example"), ""),
            (Host::of_ingress("*.example"), "*.example"),
            (Host::of_ingress("*.y.example"), ""),
        ] {
            assert_eq!(host.meet(&other).map(ToString::to_string).unwrap_or_default(), both, "{other}");
            assert_eq!(other.meet(&host), host.meet(&other), "{other}");
        }
        assert_eq!(Host::parse("*.com").meet(&host), None);
        assert_eq!(Host::of_ingress("*.a.com").meet(&Host::parse("*.com")), Some(&Host::of_ingress("*.a.com")));
        let mut map = HostMap::default();
        map.entry(Some(&host), || "ingress");
        map.entry(Some(&Host::parse("*.example")), || "route");
        for (name, levels) in [("a.example", "ingress route"), ("x.y.example", "route"), ("example", "")] {
            assert_eq!(map.levels(name).copied().collect::<Vec<_>>().join(" "), levels, "{name}");
        }
    }

    #[test]
    fn the_most_specific_name_is_found_first() {
        let mut map = HostMap::default();
        for name in ["a.example", "*.example", "*.y.example"] {
            map.entry(Some(&Host::parse(name)), || name);
        }
        map.entry(None, || "any");
        for (host, levels) in [
            ("a.example", "a.example *.example any"),
            ("x.y.example", "*.y.example *.example any"),
            ("y.example", "*.example any"),
            ("example", "any"),
            ("", "any"),
            ("..", "any"),
        ] {
            assert_eq!(map.levels(host).copied().collect::<Vec<_>>().join(" "), levels, "{host}");
        }
    }
}
