//! By what objects of any kind are told apart and ordered, however they are held. Pure.

use jiff::Timestamp;
use kube::ResourceExt;

use super::Name;

/// An object has a name, and was made at some time.
pub(crate) trait Identify {
    /// Namespace (empty where a kind has none) and name.
    fn place(&self) -> (&str, &str);
    /// When it was made.
    fn created(&self) -> Option<Timestamp>;
    /// Which version of what people wrote it is.
    fn generation(&self) -> Option<i64>;
    /// Shares with the one before what is the same in both and held by others, too.
    fn succeed(&mut self, _before: &Self)
    where
        Self: Sized,
    {
    }
}

impl<K: ResourceExt> Identify for K {
    fn place(&self) -> (&str, &str) {
        let meta = self.meta();
        let name = meta.name.as_deref().or(meta.generate_name.as_deref());
        (meta.namespace.as_deref().unwrap_or_default(), name.unwrap_or_default())
    }

    fn created(&self) -> Option<Timestamp> {
        self.meta().creation_timestamp.as_ref().map(|time| time.0)
    }

    fn generation(&self) -> Option<i64> {
        self.meta().generation
    }
}

/// The name of an object.
pub(crate) fn name_of<K: Identify + ?Sized>(object: &K) -> Name {
    let (namespace, name) = object.place();
    (namespace.to_owned(), name.to_owned())
}

/// By what the older of two objects of a kind is known, as the Gateway API settles conflicts: the time, then namespace and name.
pub(crate) type Age = (Option<Timestamp>, Name);

/// The age of an object.
pub(crate) fn age<K: Identify + ?Sized>(object: &K) -> Age {
    (object.created(), name_of(object))
}

/// As [`Age`] for routes of several kinds: the time, then namespace, name and kind.
pub(crate) type Seniority<'a> = (Option<Timestamp>, &'a str, &'a str, &'a str);

/// The seniority of a route. `route`: kind namespace/name.
pub(crate) fn seniority(created: Option<Timestamp>, route: &str) -> Seniority<'_> {
    let (kind, (namespace, name)) = label_parts(route);
    (created, namespace, name, kind)
}

/// Kind, namespace and name of what is called `kind namespace/name`.
pub(crate) fn label_parts(route: &str) -> (&str, (&str, &str)) {
    let (kind, place) = route.split_once(' ').unwrap_or(("", route));
    (kind, place.split_once('/').unwrap_or(("", place)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_all_kinds_are_ordered_by_time_then_namespace_then_name_then_kind() {
        let day = |n: i64| Timestamp::from_second(n * 86_400).ok();
        let mut all = [
            (day(2), "HTTPRoute a/a"),
            (day(1), "TCPRoute b/a"),
            (day(1), "GRPCRoute a-b/a"),
            (day(1), "HTTPRoute a/b"),
            (day(1), "GRPCRoute a/b"),
            (None, "Ingress z/z"),
        ];
        all.sort_by(|a, b| seniority(a.0, a.1).cmp(&seniority(b.0, b.1)));
        let order = all.map(|(_, route)| route).join(", ");
        let expected = "Ingress z/z, GRPCRoute a/b, HTTPRoute a/b, GRPCRoute a-b/a, TCPRoute b/a, HTTPRoute a/a";
        assert_eq!(order, expected);
    }
}
