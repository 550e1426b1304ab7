//! Which object or list a path means. In: the path; out: resource, namespace, name, subresource.
//! Source: kubernetes.io/docs/reference/using-api/api-concepts (resource URIs).

use std::sync::Arc;

use http::Method;

use super::options::{Options, unescape};
use crate::{
    kinds::{Kinds, Resource},
    rbac::Ask,
    refusal::Refusal,
};

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// Empty: cluster-scoped, or all namespaces.
    pub(crate) namespace: String,
    /// Empty: the list.
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// The old form `/watch/…`.
    pub(crate) watch: bool,
}

impl Target {
    /// One object, named by the server itself.
    pub(crate) fn of(resource: Arc<Resource>, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into(), subresource: String::new(), watch: false }
    }

    /// None for paths that aren't of stored objects.
    pub(crate) fn parse(kinds: &Kinds, path: &str) -> Option<Self> {
        let parts: Vec<String> =
            path.trim_matches('/').split('/').map(|part| unescape(&part.replace('+', "%2B"))).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, mut rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let watch = rest.first() == Some(&"watch");
        if watch {
            rest = &rest[1..];
        }
        let (namespace, plural, name, subresource) = match rest {
            ["namespaces", ns, sub @ ("status" | "finalize")] if group.is_empty() => ("", "namespaces", *ns, *sub),
            ["namespaces", ns, plural] => (*ns, *plural, "", ""),
            ["namespaces", ns, plural, name] => (*ns, *plural, *name, ""),
            ["namespaces", ns, plural, name, sub] => (*ns, *plural, *name, *sub),
            [plural] => ("", *plural, "", ""),
            [plural, name] => ("", *plural, *name, ""),
            [plural, name, sub] => ("", *plural, *name, *sub),
            _ => return None,
        };
        let resource = kinds.get(group, version, plural)?.clone();
        let scope_fits = resource.namespaced || namespace.is_empty();
        let named_in_namespace = !resource.namespaced || name.is_empty() || !namespace.is_empty();
        let known = match subresource {
            "" => true,
            "status" => resource.has_status,
            "scale" => resource.scale.is_some(),
            "finalize" => resource.is("", "namespaces"),
            "eviction" | "binding" => resource.is("", "pods"),
            "token" => resource.is("", "serviceaccounts"),
            _ => false,
        };
        (scope_fits && named_in_namespace && known).then(|| Self {
            resource,
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
            watch,
        })
    }

    /// The verb that RBAC knows.
    pub(crate) fn verb(&self, method: &Method, options: &Options) -> Result<&'static str, Refusal> {
        let on_list = self.name.is_empty();
        match *method {
            Method::GET | Method::HEAD if self.watch || options.watch => Ok("watch"),
            Method::GET | Method::HEAD if on_list => Ok("list"),
            Method::GET | Method::HEAD => Ok("get"),
            Method::POST if on_list || matches!(&*self.subresource, "eviction" | "binding" | "token") => Ok("create"),
            Method::PUT if !on_list => Ok("update"),
            Method::PATCH if !on_list => Ok("patch"),
            Method::DELETE if on_list => Ok("deletecollection"),
            Method::DELETE if self.subresource.is_empty() => Ok("delete"),
            _ => Err(Refusal::method_not_allowed("the requested resource")),
        }
    }

    /// What RBAC is asked.
    pub(crate) fn ask(&self, verb: &str) -> Ask {
        // Permissions on one namespace may be granted inside it.
        let own = self.resource.is("", "namespaces");
        Ask {
            verb: verb.into(),
            group: self.resource.group.to_string(),
            resource: self.resource.plural.to_string(),
            subresource: self.subresource.clone(),
            namespace: if own { self.name.clone() } else { self.namespace.clone() },
            name: self.name.clone(),
            path: String::new(),
        }
    }
}
