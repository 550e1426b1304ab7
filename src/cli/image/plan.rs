//! `atoll image plan POLICY IMAGE…`: whether a policy lets images through, whose agent would copy, and who has to agree.

use atoll_api::kinds::{Cluster, Registry, ReplicationPolicy};
use atoll_api::repositories::{fits, repository};
use kube::{Api, ResourceExt as _};
use serde::Serialize;

use super::Globals;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::columns;

/// Say whether a policy lets images through.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// A ReplicationPolicy of the namespace
    policy: String,
    /// For example shop/web:2
    #[arg(required = true)]
    images: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    policy: String,
    from: String,
    to: String,
    copied_by: String,
    approvals: Vec<String>,
    images: Vec<Checked>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Checked {
    image: String,
    allowed: bool,
}

impl Plan {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        let what = format!("replication policy `{}/{}`", at.namespace, self.policy);
        let policies: Api<ReplicationPolicy> = Api::namespaced(at.client.clone(), &at.namespace);
        let policy = policies.get_opt(&self.policy).await.map_err(Failure::api(&what))?;
        let policy = policy.ok_or_else(|| Failure::failed(format!("{what}: there is none")))?;
        let registries: Api<Registry> = Api::all(at.client.clone());
        let mut problems = Vec::new();
        let mut ends = Vec::new();
        for name in [&policy.spec.from, &policy.spec.to] {
            let found = registries.get_opt(name).await.map_err(Failure::api(format!("registry `{name}`")))?;
            if found.is_none() {
                problems.push(format!("registry `{name}` is not there"));
            }
            ends.push(found);
        }
        let receiver = ends[1].as_ref().and_then(|registry| registry.spec.cluster.clone());
        match &receiver {
            Some(name) => problems.extend(not_ready(&at.client, name).await?),
            None if ends[1].is_some() => {
                problems.push(format!("registry `{}` belongs to no cluster, so nobody copies into it", policy.spec.to));
            }
            None => {}
        }
        let images: Vec<Checked> = self
            .images
            .iter()
            .map(|image| Checked { image: image.clone(), allowed: allowed(&policy.spec.repositories, image) })
            .collect();
        for image in images.iter().filter(|image| !image.allowed) {
            problems.push(format!("`{}` is none of the policy's repositories", image.image));
        }
        let groups = policy.spec.approval.iter().flat_map(|rule| &rule.groups);
        let planned = Planned {
            policy: policy.name_any(),
            from: end(&policy.spec.from, ends[0].as_ref()),
            to: end(&policy.spec.to, ends[1].as_ref()),
            copied_by: receiver.unwrap_or_default(),
            approvals: groups.map(|g| format!("{} of group {}", g.votes, g.name)).collect(),
            images,
            problems,
        };
        globals.output.show(&planned, || text(&planned))?;
        if planned.problems.is_empty() { Ok(()) } else { Err(Failure::negative()) }
    }
}

async fn not_ready(client: &kube::Client, name: &str) -> Outcome<Option<String>> {
    let clusters: Api<Cluster> = Api::all(client.clone());
    let found = clusters.get_opt(name).await.map_err(Failure::api(format!("cluster `{name}`")))?;
    let Some(cluster) = found else { return Ok(Some(format!("cluster `{name}` is not there"))) };
    let conditions = cluster.status.map(|status| status.conditions).unwrap_or_default();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
    Ok(match ready {
        Some(c) if c.status == "True" => None,
        Some(c) => Some(format!("cluster `{name}` is not Ready: {}", c.message)),
        None => Some(format!("cluster `{name}` has not joined yet")),
    })
}

fn end(name: &str, registry: Option<&Registry>) -> String {
    match registry {
        Some(registry) => format!("{name} ({})", registry.spec.url),
        None => name.to_owned(),
    }
}

fn text(planned: &Planned) -> String {
    let approvals = match planned.approvals.as_slice() {
        [] => "nobody".to_owned(),
        some => some.join(", "),
    };
    let mut rows = vec![
        vec!["From".to_owned(), planned.from.clone()],
        vec!["To".into(), planned.to.clone()],
        vec!["Copied by".into(), format!("the agent of {}", planned.copied_by)],
        vec!["Approvals".into(), approvals],
    ];
    for image in &planned.images {
        rows.push(vec![
            "Image".into(),
            format!("{}{}", image.image, if image.allowed { "" } else { "   not allowed" }),
        ]);
    }
    rows.extend(planned.problems.iter().map(|problem| vec!["Problem".into(), problem.clone()]));
    columns::<String, String>(&[], rows)
}

/// Whether one of the patterns takes the repository of `image`. No pattern: none.
fn allowed(patterns: &[String], image: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, repository(image)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_repositories_with_stars() {
        let patterns = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        for (list, image, is) in [
            (&["shop/*"][..], "shop/web:2", true),
            (&["shop/*"], "shop/web@sha256:00", true),
            (&["shop/*"], "bank/web:2", false),
            (&["shop/web"], "shop/web2:1", false),
            (&["*/web", "db"], "db:1", true),
            (&[], "anything", false),
        ] {
            assert_eq!(allowed(&patterns(list), image), is, "{list:?} {image}");
        }
    }
}
