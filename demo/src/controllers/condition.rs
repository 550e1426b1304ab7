//! Conditions of a status, whose transition times change only when they do.

use serde_json::{Value, json};

/// The conditions of one object, on their way to a new status.
pub(super) struct Conditions<'a> {
    old: Vec<Value>,
    new: Vec<Value>,
    now: &'a str,
}

impl<'a> Conditions<'a> {
    /// Begins with those of `status`; what is not set again is dropped.
    pub(super) fn of(status: &Value, now: &'a str) -> Self {
        let old = status["conditions"].as_array().cloned().unwrap_or_default();
        Self { old, new: Vec::new(), now }
    }

    /// Sets one.
    pub(super) fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let status = if holds { "True" } else { "False" };
        let known = self.old.iter().find(|c| c["type"] == kind);
        let kept = known.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
        let mut condition =
            json!({"type": kind, "status": status, "lastTransitionTime": kept.unwrap_or_else(|| self.now.into())});
        if !reason.is_empty() {
            condition["reason"] = reason.into();
        }
        if !message.is_empty() {
            condition["message"] = message.into();
        }
        self.new.push(condition);
    }

    /// All of them.
    pub(super) fn done(self) -> Value {
        self.new.into()
    }
}
