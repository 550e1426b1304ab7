//! One policy rule and what it covers. Pure. Source: pkg/apis/rbac/v1/evaluation_helpers.go.

use serde_json::Value;

/// What somebody asks to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// Empty: a path that is no resource.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) path: String,
}

impl Ask {
    /// A path that is no resource.
    pub(crate) fn path(verb: &str, path: &str) -> Self {
        Self { verb: verb.into(), path: path.into(), ..Self::default() }
    }
}

/// A PolicyRule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) verbs: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) paths: Vec<String>,
}

impl Rule {
    /// The rules of a Role or ClusterRole.
    pub(crate) fn all_of(role: &Value) -> Vec<Self> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Self::read).collect()
    }

    fn read(rule: &Value) -> Self {
        let list = |key: &str| -> Vec<String> {
            let list = rule.get(key).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    pub(crate) fn covers(&self, ask: &Ask) -> bool {
        has(&self.verbs, &ask.verb)
            && if ask.resource.is_empty() {
                self.paths.iter().any(|path| match path.strip_suffix('*') {
                    Some(prefix) => ask.path.starts_with(prefix),
                    None => *path == ask.path,
                })
            } else {
                has(&self.groups, &ask.group) && self.covers_resource(ask) && self.covers_name(ask)
            }
    }

    fn covers_resource(&self, ask: &Ask) -> bool {
        self.resources.iter().any(|resource| {
            if resource == "*" {
                return true;
            }
            let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
            (plural == ask.resource || plural == "*" && !sub.is_empty()) && sub == ask.subresource
        })
    }

    fn covers_name(&self, ask: &Ask) -> bool {
        self.names.is_empty() || self.names.contains(&ask.name)
    }

    /// Whether this rule grants everything that the other one does.
    pub(crate) fn covers_rule(&self, other: &Self) -> bool {
        let all = |own: &[String], theirs: &[String]| theirs.iter().all(|one| has(own, one));
        let resources = other.resources.iter().all(|resource| {
            self.resources.contains(resource)
                || self.resources.iter().any(|own| own == "*")
                || resource.split_once('/').is_some_and(|(_, sub)| self.resources.contains(&format!("*/{sub}")))
        });
        all(&self.verbs, &other.verbs)
            && all(&self.groups, &other.groups)
            && resources
            && (self.names.is_empty() || !other.names.is_empty() && other.names.iter().all(|n| self.names.contains(n)))
            && other.paths.iter().all(|path| {
                self.paths.iter().any(|own| match own.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => own == path,
                })
            })
    }

    /// The parts of a rule that have one verb, group, resource and name each.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let mut parts = Vec::new();
        for verb in &self.verbs {
            for path in &self.paths {
                parts.push(Self { verbs: vec![verb.clone()], paths: vec![path.clone()], ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let one = Self {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Self::default()
                    };
                    if self.names.is_empty() {
                        parts.push(one.clone());
                    }
                    parts.extend(self.names.iter().map(|name| Self { names: vec![name.clone()], ..one.clone() }));
                }
            }
        }
        parts
    }
}

fn has(list: &[String], want: &str) -> bool {
    list.iter().any(|one| one == "*" || one == want)
}
