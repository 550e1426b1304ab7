//! `atoll explain`: with a name, why an object is as it is (a Bundle: why it runs where it runs); without, what a kind's
//! fields mean.

use std::fmt::Write as _;

use atoll_api::kinds::{Bundle, crds, standard_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::Globals;
use super::connect::Connection;
use super::failure::{Failure, Outcome};
use super::kinds;
use super::output::columns;

/// Say why an object is as it is, or what a kind's fields mean.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// KIND NAME (or KIND/NAME) for an object, KIND[.FIELD…] for fields, for example bundle.spec.placement
    #[arg(required = true, num_args = 1..=2, value_name = "KIND NAME")]
    what: Vec<String>,
}

impl Explain {
    /// Runs it. Fields of our kinds need no API server.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        if let [path] = self.what.as_slice()
            && !path.contains('/')
        {
            return fields(path, globals);
        }
        let (word, name) = kinds::one(&self.what)?;
        let at = globals.hub().await?;
        let kind = kinds::find(&at.client, &word).await?;
        if kind.resource.kind == "Bundle" {
            return bundle(&at, &name, globals).await;
        }
        let object = kinds::read(&at, &kind, &name).await?;
        let status = &object.data["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let document = json!({"kind": kind.resource.kind, "name": name, "status": status});
        globals.output.show(&document, || {
            let mut lines = Vec::new();
            for key in ["state", "message", "requester", "reach"] {
                if let Some(text) = status[key].as_str() {
                    lines.push(vec![key.to_owned(), text.to_owned(), String::new()]);
                }
            }
            for condition in &conditions {
                let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
                lines.push(vec![text("type"), format!("{} ({})", text("status"), text("reason")), text("message")]);
            }
            if lines.is_empty() {
                lines.push(vec![name.clone(), "nothing is known of it yet".into(), String::new()]);
            }
            columns::<String, String>(&[], lines)
        })
    }
}

async fn bundle(at: &Connection, name: &str, globals: &Globals) -> Outcome {
    let what = format!("bundle `{}/{name}`", at.namespace);
    let bundles: Api<Bundle> = Api::namespaced(at.client.clone(), &at.namespace);
    let found = bundles.get_opt(name).await.map_err(Failure::api(&what))?;
    let bundle = found.ok_or_else(|| Failure::failed(format!("{what}: there is none in this namespace")))?;
    let status = bundle.status.clone().unwrap_or_default();
    let document = json!({
        "namespace": at.namespace, "name": name, "clusters": status.clusters, "conditions": status.conditions,
        "unplaced": status.unplaced,
    });
    globals.output.show(&document, || {
        let number = |n: Option<i32>| n.map(|n| n.to_string()).unwrap_or_default();
        let rows = status.clusters.iter().map(|c| {
            let why = c.message.clone().unwrap_or_default();
            vec![c.name.clone(), c.state.clone(), number(c.replicas), number(c.ready), why]
        });
        let mut text = match status.clusters.is_empty() {
            true => format!("bundle {}/{} has not been placed yet: does the hub run?", at.namespace, bundle.name_any()),
            false => columns(&["Cluster", "State", "Replicas", "Ready", "Why"], rows),
        };
        if let Some(unplaced) = status.unplaced.filter(|n| *n > 0) {
            let _ = write!(text, "\n{unplaced} replicas found no place");
        }
        for condition in status.conditions.iter().filter(|c| c.status != "True") {
            let _ = write!(
                text,
                "\n{} is {} ({}): {}",
                condition.type_, condition.status, condition.reason, condition.message
            );
        }
        text
    })
}

fn fields(path: &str, globals: &Globals) -> Outcome {
    let mut parts = path.split('.');
    let word = parts.next().unwrap_or_default();
    let Some(kind) = kinds::known(word) else {
        let ours = kinds::ours().join(", ");
        return Err(Failure::failed(format!(
            "no kind `{word}` to explain; ours are {ours} (kubectl explain knows the others)"
        )));
    };
    let all = crds().into_iter().chain(standard_crds());
    let crd = all
        .into_iter()
        .find(|crd| crd.spec.names.plural == kind.resource.plural && crd.spec.group == kind.resource.group);
    let versions = crd.map(|crd| crd.spec.versions).unwrap_or_default();
    let version = versions.into_iter().find(|v| v.name == kind.resource.version);
    let mut schema = version
        .and_then(|v| v.schema)
        .and_then(|s| s.open_api_v3_schema)
        .ok_or_else(|| Failure::failed(format!("kind `{word}` has no schema")))?;
    for part in parts {
        let next = properties(&schema).and_then(|properties| properties.get(part)).cloned();
        schema = next.ok_or_else(|| {
            let there: Vec<&str> = properties(&schema).into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            Failure::failed(format!("`{path}`: no field `{part}`; there are: {}", there.join(", ")))
        })?;
    }
    let document = json!({"kind": kind.resource.kind, "field": path, "schema": schema});
    globals.output.show(&document, || describe(path, &schema))
}

/// Fields of an object, or of the items of a list.
fn properties(schema: &JSONSchemaProps) -> Option<&std::collections::BTreeMap<String, JSONSchemaProps>> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray as Items;
    match &schema.items {
        Some(Items::Schema(item)) => item.properties.as_ref(),
        _ => schema.properties.as_ref(),
    }
}

fn describe(path: &str, schema: &JSONSchemaProps) -> String {
    let mut text = format!("{path} <{}>\n", type_of(schema));
    if let Some(description) = &schema.description {
        let _ = writeln!(text, "{description}");
    }
    let required = schema.required.clone().unwrap_or_default();
    let rows = properties(schema).into_iter().flatten().map(|(name, field)| {
        let must = if required.contains(name) { " required" } else { "" };
        let mut about = field.description.clone().unwrap_or_default();
        if let Some(words) = &field.enum_ {
            let words: Vec<String> =
                words.iter().map(|w| w.0.as_str().map_or_else(|| w.0.to_string(), str::to_owned)).collect();
            let _ = write!(about, " One of {}.", words.join(", "));
        }
        if let Some(default) = field.default.as_ref().filter(|d| d.0 != Value::Null) {
            let _ = write!(about, " Default: {}.", default.0);
        }
        vec![format!("  {name}"), format!("<{}>{must}", type_of(field)), about]
    });
    let table = columns::<String, String>(&[], rows);
    if !table.is_empty() {
        text.push('\n');
        text.push_str(&table);
    }
    text
}

fn type_of(schema: &JSONSchemaProps) -> String {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray as Items;
    match (&schema.type_, &schema.items) {
        (Some(_), Some(Items::Schema(item))) => format!("[]{}", type_of(item)),
        (Some(kind), _) => kind.clone(),
        (None, _) => "any".into(),
    }
}
