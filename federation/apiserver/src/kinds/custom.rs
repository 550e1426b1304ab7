//! Custom kinds. In: a CustomResourceDefinition; out: the resources of its served versions, or why it is refused.
//! Schemas are read from the definition at first use, not before: most are large.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::{Resource, Scale, Source, strings};
use crate::{
    object::{self, meta, text},
    refusal::Cause,
    schema::{Schema, parse},
    store::Stored,
};

/// One served version of a definition.
#[derive(Debug)]
pub(crate) struct Custom {
    definition: Arc<Stored>,
    version: Box<str>,
    pub(crate) deprecation: Option<Box<str>>,
}

impl Custom {
    /// The definition, as it was when it was read.
    pub(super) fn definition(&self) -> &Arc<Stored> {
        &self.definition
    }

    /// The revision of the definition.
    pub(crate) fn revision(&self) -> u64 {
        self.definition.revision
    }

    /// The version's entry in `spec.versions`.
    pub(crate) fn entry(&self) -> Value {
        let mut definition = self.definition.value();
        let versions = definition.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
        let entry = versions.into_iter().flatten().find(|entry| text(entry, &["name"]) == &*self.version);
        entry.map(Value::take).unwrap_or_default()
    }

    pub(super) fn schema(&self) -> Arc<Schema> {
        let entry = self.entry();
        let Some(source) = entry.pointer("/schema/openAPIV3Schema") else {
            return Arc::new(Schema { preserve_unknown: true, ..Schema::default() });
        };
        let mut schema = parse(source);
        // Metadata is the server's: its schema is that of every built-in kind.
        schema.properties.insert("metadata".into(), object_meta());
        Arc::new(schema)
    }
}

fn object_meta() -> Arc<Schema> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    crate::schema::of_builtin(crate::schema::derive::<ObjectMeta>)
}

/// The resources that a stored definition asks for.
pub(super) fn resources(stored: &Arc<Stored>) -> Vec<Arc<Resource>> {
    let definition = stored.value();
    let Some(spec) = definition.get("spec") else { return Vec::new() };
    let (group, names) = (text(spec, &["group"]), &spec["names"]);
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    let storage = versions.iter().find(|v| v["storage"] == true).map(|v| text(v, &["name"])).unwrap_or_default();
    let mut served: Vec<&&Value> = versions.iter().filter(|v| v["served"] != false).collect();
    served.sort_by_key(|v| std::cmp::Reverse(precedence(text(v, &["name"]))));
    let made = served.into_iter().map(|entry| {
        let version = text(entry, &["name"]);
        let kind = text(names, &["kind"]);
        let or = |key: &str, other: String| match text(names, &[key]) {
            "" => other.into(),
            given => Box::from(given),
        };
        let deprecated = entry["deprecated"] == true;
        let warning = entry.get("deprecationWarning").and_then(Value::as_str).map(Box::from);
        Arc::new(Resource {
            group: group.into(),
            version: version.into(),
            plural: text(names, &["plural"]).into(),
            singular: or("singular", kind.to_lowercase()),
            kind: kind.into(),
            list_kind: or("listKind", format!("{kind}List")),
            short_names: strings(names, "shortNames"),
            categories: strings(names, "categories"),
            namespaced: text(spec, &["scope"]) == "Namespaced",
            has_status: entry.pointer("/subresources/status").is_some(),
            counts_generation: true,
            scale: entry.pointer("/subresources/scale").map(scale),
            collection: format!("{group}/{}", text(names, &["plural"])).into(),
            stored_as: format!("{group}/{storage}").into(),
            source: Source::Custom(Custom {
                definition: stored.clone(),
                version: version.into(),
                deprecation: deprecated
                    .then(|| warning.unwrap_or_else(|| format!("{group}/{version} {kind} is deprecated").into())),
            }),
            schema: OnceLock::new(),
        })
    });
    made.collect()
}

fn scale(value: &Value) -> Scale {
    let path = |key: &str| -> Vec<String> {
        text(value, &[key]).split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let selector = path("labelSelectorPath");
    Scale {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: (!selector.is_empty()).then_some(selector),
    }
}

/// Kubernetes' version order: v2 over v1 over v1beta2 over v1beta1 over v1alpha1 over anything else.
fn precedence(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    let (stage, minor) = match &rest[digits..] {
        "" => return (3, major, 0),
        beta if beta.starts_with("beta") => (2, &beta[4..]),
        alpha if alpha.starts_with("alpha") => (1, &alpha[5..]),
        _ => return (0, 0, 0),
    };
    (stage, major, minor.parse().unwrap_or(0))
}

/// What is wrong with a definition.
pub(crate) fn check_definition(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let (group, plural) = (text(spec, &["group"]), text(spec, &["names", "plural"]));
    let want = format!("{plural}.{group}");
    if meta(definition, "name") != want {
        let name = Value::from(meta(definition, "name"));
        causes.push(Cause::invalid("metadata.name", &name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if super::is_builtin(group, plural) {
        causes.push(Cause::invalid("spec.group", &spec["group"], format!("{want} is built in")));
    }
    if !matches!(text(spec, &["scope"]), "Namespaced" | "Cluster") {
        causes.push(Cause::invalid("spec.scope", &spec["scope"], "supported values: \"Cluster\", \"Namespaced\""));
    }
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &Value::from(versions.len()), why));
    }
    for (index, entry) in versions.iter().enumerate() {
        let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
        match entry.pointer("/schema/openAPIV3Schema") {
            None => causes.push(Cause::required(field)),
            Some(schema) if schema["type"] != "object" => {
                causes.push(Cause::invalid(format!("{field}.type"), &schema["type"], "must be object at the root"));
            }
            Some(schema) => check_patterns(schema, &field, &mut causes),
        }
    }
    causes
}

fn check_patterns(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Err(why) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression: {why}");
        causes.push(Cause::invalid(format!("{path}.pattern"), &schema["pattern"], why));
    }
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check_patterns(child, &format!("{path}.properties[{name}]"), causes);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key).filter(|child| child.is_object()) {
            check_patterns(child, &format!("{path}.{key}"), causes);
        }
    }
}

/// Fills in what the server says about a definition: names accepted, established. They always are: names that clash
/// can't arise, because the object's name is made of them.
pub(crate) fn established(definition: &mut Value) {
    let names = definition["spec"]["names"].clone();
    let kind = text(&names, &["kind"]).to_owned();
    let names_mut = object::map_mut(definition, "spec");
    if let Some(names) = names_mut.get_mut("names").and_then(Value::as_object_mut) {
        names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
        names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    }
    names_mut.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let accepted = definition["spec"]["names"].clone();
    let versions: Vec<Value> = definition["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let storage: Vec<Value> = versions.iter().filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    let since = definition.pointer("/status/conditions/0/lastTransitionTime").cloned();
    let since = since.unwrap_or_else(|| object::now().into());
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": "True",
        "lastTransitionTime": since, "reason": reason, "message": message})
    };
    definition["status"] = json!({
        "acceptedNames": accepted,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": storage,
    });
}
