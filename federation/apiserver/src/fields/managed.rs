//! metadata.managedFields: reading, writing, and what an update or an apply does to it.
//! In: the object before, what is asked, who asks; out: the object with its new managedFields, or conflicts.

use serde_json::{Map, Value, json};

use super::{
    set::FieldSet,
    walk::{compare, fields_of, merge, remove},
};
use crate::{
    object::{meta_mut, text},
    refusal::Refusal,
    schema::Schema,
};

/// Managers that update are folded together beyond this many.
const UPDATERS_MAX: usize = 10;

/// Who changes an object, and how.
#[derive(Debug, Clone)]
pub(crate) struct Author<'a> {
    pub(crate) manager: &'a str,
    pub(crate) api_version: &'a str,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    /// RFC 3339.
    pub(crate) time: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
struct Manager {
    name: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

impl Manager {
    fn is(&self, author: &Author<'_>, operation: &str) -> bool {
        self.name == author.manager
            && self.operation == operation
            && self.subresource == author.subresource
            && self.api_version == author.api_version
    }

    fn new(author: &Author<'_>, operation: &str) -> Self {
        Self {
            name: author.manager.into(),
            operation: operation.into(),
            api_version: author.api_version.into(),
            subresource: author.subresource.into(),
            time: author.time.into(),
            fields: FieldSet::default(),
        }
    }

    fn read(entry: &Value) -> Self {
        Self {
            name: text(entry, &["manager"]).into(),
            operation: text(entry, &["operation"]).into(),
            api_version: text(entry, &["apiVersion"]).into(),
            subresource: text(entry, &["subresource"]).into(),
            time: text(entry, &["time"]).into(),
            fields: entry.get("fieldsV1").map(FieldSet::from_json).unwrap_or_default(),
        }
    }

    fn write(&self) -> Value {
        let mut entry = json!({"manager": self.name, "operation": self.operation, "apiVersion": self.api_version});
        if !self.time.is_empty() {
            entry["time"] = self.time.as_str().into();
        }
        entry["fieldsType"] = "FieldsV1".into();
        entry["fieldsV1"] = self.fields.to_json();
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }
}

fn read(object: &Value) -> Vec<Manager> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().map(Manager::read).collect()
}

fn write(object: &mut Value, managers: &[Manager]) {
    let list: Vec<Value> = managers.iter().filter(|m| !m.fields.is_empty()).map(Manager::write).collect();
    let meta = meta_mut(object);
    if list.is_empty() {
        meta.shift_remove("managedFields");
    } else {
        meta.insert("managedFields".into(), list.into());
    }
}

/// The object without what nobody owns: identity and what the server writes.
fn bare(object: &Value) -> Value {
    let mut bare = object.as_object().cloned().unwrap_or_default();
    for key in ["apiVersion", "kind"] {
        bare.shift_remove(key);
    }
    if let Some(meta) = bare.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in crate::object::OWNED_BY_SERVER.iter().chain(&["name", "namespace", "selfLink", "managedFields"]) {
            meta.shift_remove(*key);
        }
        if meta.is_empty() {
            bare.shift_remove("metadata");
        }
    }
    Value::Object(bare)
}

/// Notes in `new` who changed what since `old`. `old` is none for a create. Keeps the times when nothing changed.
pub(crate) fn track(old: Option<&Value>, new: &mut Value, schema: &Schema, author: &Author<'_>) {
    let asked = new.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    let held = old.and_then(|old| old.pointer("/metadata/managedFields")).cloned().unwrap_or_default();
    let is_reset = asked.as_array().is_some_and(|list| list.len() == 1 && list[0] == json!({}));
    // A client that leaves them out (or sends what it read) changes nothing; one that writes them replaces them.
    let mut managers = match () {
        () if is_reset => Vec::new(),
        () if asked.as_array().is_some_and(|list| !list.is_empty()) && old.is_some() => read(new),
        () => old.map(read).unwrap_or_default(),
    };
    let before = old.map_or(Value::Object(Map::new()), bare);
    let difference = compare(&before, &bare(new), Some(schema));
    let touched = !difference.set.is_empty() || !difference.removed.is_empty();
    if touched {
        for manager in &mut managers {
            let own = manager.is(author, "Update");
            let lost = if own { difference.removed.clone() } else { difference.removed.clone().union(&difference.set) };
            manager.fields = manager.fields.minus(&lost);
        }
        if !difference.set.is_empty() {
            let at = managers.iter().position(|m| m.is(author, "Update")).unwrap_or_else(|| {
                managers.push(Manager::new(author, "Update"));
                managers.len() - 1
            });
            managers[at].fields.add(&difference.set);
            managers[at].time = author.time.into();
        }
        fold(&mut managers);
    } else if !is_reset && (asked.is_null() || asked == held) {
        restore(new, &held);
        return;
    }
    write(new, &managers);
}

fn restore(object: &mut Value, held: &Value) {
    if held.is_null() {
        meta_mut(object).shift_remove("managedFields");
    } else {
        meta_mut(object).insert("managedFields".into(), held.clone());
    }
}

/// Folds the oldest updaters into one, so that the list can't grow without end.
fn fold(managers: &mut Vec<Manager>) {
    while managers.iter().filter(|m| m.operation == "Update").count() > UPDATERS_MAX {
        let mut updaters: Vec<usize> = (0..managers.len()).filter(|i| managers[*i].operation == "Update").collect();
        updaters.sort_by(|a, b| managers[*a].time.cmp(&managers[*b].time));
        let oldest = managers.remove(updaters[0].max(updaters[1]));
        let kept = &mut managers[updaters[0].min(updaters[1])];
        kept.fields.add(&oldest.fields);
        kept.name = "ancient-changes".into();
    }
}

/// Lays an applied configuration over an object. Returns the object with new managedFields.
///
/// # Errors
/// Conflict, naming the managers and fields, unless `force`.
pub(crate) fn apply(
    live: &Value,
    applied: &Value,
    schema: &Schema,
    author: &Author<'_>,
    force: bool,
) -> Result<Value, Refusal> {
    let mut managers = read(live);
    let wanted = fields_of(&bare(applied), Some(schema));
    let mut merged = merge(live, applied, Some(schema));
    let changed = compare(&bare(live), &bare(&merged), Some(schema)).set;

    // Fields that others own and that would change hands.
    let mut conflicts = Vec::new();
    for manager in managers.iter_mut().filter(|m| !m.is(author, "Apply")) {
        let contested = manager.fields.common(&changed);
        if contested.is_empty() {
            continue;
        }
        if force {
            manager.fields = manager.fields.minus(&contested);
        }
        conflicts.extend(contested.paths().into_iter().map(|path| (path, conflict(manager))));
    }
    if !force && !conflicts.is_empty() {
        return Err(Refusal::apply_conflict(&conflicts));
    }

    // Fields that this manager applied before and does not any more go, unless somebody else owns them.
    let at = managers.iter().position(|m| m.is(author, "Apply"));
    if let Some(at) = at {
        let mut keep =
            managers.iter().enumerate().filter(|(i, _)| *i != at).fold(wanted.clone(), |k, (_, m)| k.union(&m.fields));
        // An object's identity is nobody's field.
        keep.children.entry("f:metadata".to_owned()).or_default().owned = true;
        let gone = managers[at].fields.minus(&wanted);
        remove(&mut merged, &gone, &keep, Some(schema));
    }

    let at = at.unwrap_or_else(|| {
        managers.push(Manager::new(author, "Apply"));
        managers.len() - 1
    });
    let is_same = managers[at].fields == wanted && bare(live) == bare(&merged);
    managers[at].fields = wanted;
    if !is_same {
        managers[at].time = author.time.into();
    }
    write(&mut merged, &managers);
    Ok(merged)
}

fn conflict(manager: &Manager) -> String {
    let part = match manager.subresource.as_str() {
        "" => String::new(),
        sub => format!(" with subresource \"{sub}\""),
    };
    format!("conflict with \"{}\"{part} using {}", manager.name, manager.api_version)
}
