//! Names that resolvers make by completing other names with a search list, told from names that may exist. Pure.
//!
//! ```text
//!   example.com               + shop.svc.prod-eu.atoll.internal   in svc, but neither service, endpoint nor port of one
//!   web.shop.svc.cluster.local + prod-eu.atoll.internal           neither svc nor pod
//!   web.shop.svc.prod-eu.atoll.internal + prod-eu.atoll.internal  the tail twice: neither svc nor pod
//! ```
//!
//! In: the labels that stand left of a Kubernetes member's own domain. Out: whether the Kubernetes DNS specification 1.1 has such names. What
//! it has not a member is never asked for. Further domains of a member (aliases) hold what they like: they are not asked about here. One
//! label alone is let through, so that a record somebody put beside `svc` is found.

/// Labels of the longest name of a service: `_port._proto.service.namespace`.
const SERVICE_LABELS_MAX: usize = 4;

/// Whether no name of a Kubernetes cluster can have this path; leftmost first.
pub(crate) fn is_none(path: &[&[u8]]) -> bool {
    let Some((last, left)) = path.split_last() else { return false };
    let word = |label: &[u8]| label.starts_with(b"_");
    if last.eq_ignore_ascii_case(b"svc") {
        // service.namespace, with an endpoint, a protocol, or port and protocol before it.
        return match left {
            [.., service, namespace] if word(service) || word(namespace) => true,
            [port, protocol, _, _] => !(word(port) && word(protocol)),
            _ => left.len() > SERVICE_LABELS_MAX,
        };
    }
    if last.eq_ignore_ascii_case(b"pod") {
        // address.namespace.
        return left.len() > 2;
    }
    !left.is_empty()
}

/// The names above a name of a Kubernetes cluster, nearest first, that don't exist when the member says so, and nothing below them then
/// (RFC 8020): its service, its namespace. As numbers of labels of the path.
pub(crate) fn cuts(path: &[&[u8]]) -> impl Iterator<Item = usize> {
    let services = path.last().is_some_and(|last| last.eq_ignore_ascii_case(b"svc"));
    let most = if services { path.len().min(SERVICE_LABELS_MAX) } else { 0 };
    (2..most).rev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed_names_are_told_from_names_that_may_exist() {
        for (path, none, above) in [
            ("web.shop.svc", false, vec!["shop.svc"]),
            ("web-0.web.shop.svc", false, vec!["web.shop.svc", "shop.svc"]),
            ("_tcp.web.shop.svc", false, vec!["web.shop.svc", "shop.svc"]),
            ("_http._tcp.web.shop.svc", false, vec!["web.shop.svc", "shop.svc"]),
            ("shop.svc", false, vec![]),
            ("SVC", false, vec![]),
            ("10-1-0-7.shop.pod", false, vec![]),
            ("dns-version", false, vec![]),
            ("registry", false, vec![]),
            ("example.com.shop.svc", false, vec!["com.shop.svc", "shop.svc"]),
            ("www.example.com.shop.svc", true, vec![]),
            ("a.b.c.d.e.svc", true, vec![]),
            ("web.shop.svc.cluster.local", true, vec![]),
            ("web.shop.svc.cluster.local.shop.svc", true, vec![]),
            ("web.shop.svc.cluster.local.svc", true, vec![]),
            ("web.shop.svc.prod-eu.atoll.internal", true, vec![]),
            ("example.com", true, vec![]),
            ("_http._tcp.svc", true, vec![]),
            ("a.b.c.pod", true, vec![]),
            ("x.dns-version", true, vec![]),
        ] {
            let labels: Vec<&[u8]> = path.split('.').map(str::as_bytes).collect();
            assert_eq!(is_none(&labels), none, "{path}");
            if !none {
                let text = |n: usize| path.split('.').skip(labels.len() - n).collect::<Vec<_>>().join(".");
                assert_eq!(cuts(&labels).map(text).collect::<Vec<_>>(), above, "{path}");
            }
        }
    }
}
