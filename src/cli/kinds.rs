//! Which kind a word means: `clusters`, `cluster`, `cl`, `Cluster`, `clusters.atoll.dev`.
//!
//! Ours and the standard ones we use are known by heart; others are asked of the API server.

use atoll_api::kinds::{crds, standard_crds};
use kube::api::{ApiResource, DynamicObject};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client};

use super::connect::Connection;
use super::failure::{Failure, Outcome};

/// A kind and where its objects live.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Group, version, kind, plural.
    pub(crate) resource: ApiResource,
    /// Whether its objects lie in namespaces.
    pub(crate) namespaced: bool,
}

impl Kind {
    /// Its objects: in `namespace`, or everywhere.
    pub(crate) fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// `cluster.atoll.dev/prod-eu`, as `-o name` prints it.
    pub(crate) fn name_of(&self, name: &str) -> String {
        let (kind, group) = (self.resource.kind.to_lowercase(), &self.resource.group);
        if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
    }
}

/// Finds the kind that `word` means.
///
/// # Errors
/// There is none, or the API server can't be asked.
pub(crate) async fn find(client: &Client, word: &str) -> Outcome<Kind> {
    if let Some(kind) = known(word) {
        return Ok(kind);
    }
    let what = format!("find the kind `{word}`");
    let discovered = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovered) => Ok(discovered),
        // Older servers can't tell all at once.
        Err(kube::Error::Api(_)) => Discovery::new(client.clone()).run().await,
        Err(other) => Err(other),
    };
    let discovered = discovered.map_err(Failure::api(&what))?;
    let (plural, group) = word.split_once('.').map_or((word, None), |(plural, group)| (plural, Some(group)));
    let all = discovered.groups_alphabetical().into_iter().flat_map(|g| g.recommended_resources());
    let mut fitting = all.filter(|(resource, _)| {
        group.is_none_or(|group| group == resource.group)
            && (resource.plural.eq_ignore_ascii_case(plural) || resource.kind.eq_ignore_ascii_case(plural))
    });
    match fitting.next() {
        Some((resource, capabilities)) => Ok(Kind { resource, namespaced: capabilities.scope == Scope::Namespaced }),
        None => Err(Failure::failed(format!("no kind `{word}` here; ours are {}", ours().join(", ")))),
    }
}

/// The kinds that need no asking.
pub(crate) fn known(word: &str) -> Option<Kind> {
    let (short, group) = word.split_once('.').map_or((word, None), |(short, group)| (short, Some(group)));
    crds().into_iter().chain(standard_crds()).find_map(|crd| {
        let names = &crd.spec.names;
        let words = [Some(&names.plural), Some(&names.kind), names.singular.as_ref()];
        let short_names = names.short_names.iter().flatten();
        let fits = words.into_iter().flatten().chain(short_names).any(|w| w.eq_ignore_ascii_case(short));
        if !fits || group.is_some_and(|group| group != crd.spec.group) {
            return None;
        }
        let version = crd.spec.versions.iter().find(|v| v.storage)?.name.clone();
        let resource = ApiResource {
            api_version: format!("{}/{version}", crd.spec.group),
            group: crd.spec.group.clone(),
            version,
            kind: names.kind.clone(),
            plural: names.plural.clone(),
        };
        Some(Kind { resource, namespaced: crd.spec.scope == "Namespaced" })
    })
}

/// Our kinds, by plural.
pub(crate) fn ours() -> Vec<String> {
    crds().into_iter().map(|crd| crd.spec.names.plural).collect()
}

/// `KIND/NAME`, or `KIND` and `NAME` as two words.
///
/// # Errors
/// No name.
pub(crate) fn one(words: &[String]) -> Outcome<(String, String)> {
    match words {
        [kind, name] => Ok((kind.clone(), name.clone())),
        [both] => match both.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok((kind.to_owned(), name.to_owned())),
            _ => Err(Failure::usage(format!("`{both}`: name an object, as KIND/NAME or KIND NAME"))),
        },
        _ => Err(Failure::usage("name one object, as KIND/NAME or KIND NAME")),
    }
}

/// Reads one object.
///
/// # Errors
/// It is not there, or the API server says no.
pub(crate) async fn read(at: &Connection, kind: &Kind, name: &str) -> Outcome<DynamicObject> {
    let what = format!("{} `{}`", kind.resource.kind.to_lowercase(), place(kind, &at.namespace, name));
    let found = kind.api(&at.client, Some(&at.namespace)).get_opt(name).await.map_err(Failure::api(&what))?;
    found.ok_or_else(|| {
        let hint = if kind.namespaced { " in this namespace (-n chooses another)" } else { "" };
        Failure::failed(format!("{what}: there is none{hint}"))
    })
}

/// `shop/web`, or the name alone.
pub(crate) fn place(kind: &Kind, namespace: &str, name: &str) -> String {
    if kind.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_all_of_its_names() {
        for word in ["clusters", "cluster", "cl", "Cluster", "CLUSTERS", "clusters.atoll.dev"] {
            assert_eq!(known(word).map(|k| k.resource.kind), Some("Cluster".to_owned()), "{word}");
        }
        assert!(known("bd").is_some_and(|k| k.namespaced));
        assert!(known("httproutes").is_some_and(|k| k.resource.group == "gateway.networking.k8s.io"));
        for word in ["pods", "clusters.example.com", ""] {
            assert!(known(word).is_none(), "{word}");
        }
    }

    #[test]
    fn an_object_is_named_in_one_word_or_two() {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let web = ("bundle".to_owned(), "web".to_owned());
        assert_eq!(one(&words(&["bundle/web"])).unwrap(), web);
        assert_eq!(one(&words(&["bundle", "web"])).unwrap(), web);
        for bad in [words(&[]), words(&["bundle"]), words(&["bundle/"]), words(&["a", "b", "c"])] {
            assert_eq!(one(&bad).unwrap_err().code, 2, "{bad:?}");
        }
    }
}
