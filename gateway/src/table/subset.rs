//! Subsets of a service, as backends of routes name them: a filter of the backend, `extensionRef: {group: atoll.dev, kind: Subset, name: v1}`.
//! Pure.
//!
//! In: the filters of a backend, the TrafficPolicies of services. Out: the subset, or why there is none. A backend whose subset is unknown answers
//! 500, it never leads to the whole service. Source: Gateway API (HTTPRouteFilter: "If a reference to a custom filter type cannot be resolved, the
//! filter MUST NOT be skipped").

use std::borrow::Borrow;
use std::sync::Arc;

use atoll_api::kinds::gateway::HTTPRouteFilter;
use atoll_api::kinds::{GROUP, SUBSET_KIND, Subset};
use atoll_api::names::ServiceName;

use super::Policy;
use super::backend::{Problem, Resolver};

/// The subset that a filter names; nothing where it is another filter.
pub(crate) fn subset_of(filter: &HTTPRouteFilter) -> Option<&str> {
    let named = filter.extension_ref.as_ref().filter(|_| filter.filter_type == "ExtensionRef")?;
    (named.group == GROUP && named.kind == SUBSET_KIND).then_some(&*named.name)
}

/// The subset that the filters of a backend name.
///
/// # Errors
/// They name two.
pub(crate) fn subset_named(filters: &[HTTPRouteFilter]) -> Result<Option<&str>, Problem> {
    let mut named = filters.iter().filter_map(subset_of);
    match (named.next(), named.next()) {
        (Some(one), Some(another)) => {
            let why = format!("filter `ExtensionRef`: a backend is of one subset, `{one}` or `{another}`");
            Err(Problem::new("UnsupportedValue", why))
        }
        (named, _) => Ok(named),
    }
}

/// The subset of that name among those of a service's policy.
///
/// # Errors
/// There is no policy, or none of that name in it.
pub(crate) fn find_subset<'a, S: Borrow<Subset>>(policy: Option<(&str, &'a [S])>, name: &str) -> Result<&'a S, String> {
    let (policy, subsets) = policy.ok_or_else(|| format!("no TrafficPolicy names it, so it has no subset `{name}`"))?;
    subsets.iter().find(|subset| (*subset).borrow().name == name).ok_or_else(|| {
        let known: Vec<&str> = subsets.iter().map(|subset| &*subset.borrow().name).collect();
        let known = if known.is_empty() { "none at all".to_owned() } else { format!("only {}", known.join(", ")) };
        format!("its TrafficPolicy `{policy}` has no subset `{name}`, {known}")
    })
}

impl Resolver<'_> {
    /// The subset of a service that a reference names, where it names one; `what`: the service as its kind.
    pub(super) fn subset(
        &self,
        what: &str,
        service: &ServiceName,
        name: Option<&str>,
    ) -> Result<Option<Arc<Subset>>, Problem> {
        let Some(name) = name else { return Ok(None) };
        let policy = self.traffic.get(service);
        let policy = policy.map(|policy: &Arc<Policy>| (&*policy.name, &*policy.subsets));
        let missing = |why| Problem::new("BackendNotFound", format!("{what} `{service}`: {why}"));
        find_subset(policy, name).cloned().map(Some).map_err(missing)
    }
}

/// A service's name with the subset behind it, for people.
pub(crate) fn subset_suffix(subset: Option<&str>) -> String {
    subset.map(|subset| format!(", subset {subset}")).unwrap_or_default()
}
