//! `atoll wait KIND/NAME --for …`: until an object is as wished, or the time is over.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Globals;
use super::failure::{Failure, Outcome};
use super::kinds;

const AGAIN: Duration = Duration::from_millis(250);

/// Wait until an object is as wished.
#[derive(Debug, clap::Args)]
pub(crate) struct Wait {
    /// KIND NAME or KIND/NAME
    #[arg(required = true, num_args = 1..=2, value_name = "KIND NAME")]
    object: Vec<String>,
    /// condition=Ready, condition=Ready=False, state=Succeeded, .status.nodes=3 or delete
    #[arg(long = "for", value_name = "WISH", default_value = "condition=Ready", value_parser = Wish::parse)]
    wish: Wish,
    /// How long at most
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = atoll_api::duration::parse)]
    timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Gone,
    Condition(String, String),
    Field(String, String),
}

impl Wish {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: write condition=TYPE[=STATUS], state=STATE, .path.to.field=VALUE or delete");
        if text == "delete" {
            return Ok(Self::Gone);
        }
        let (key, value) = text.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or_else(wrong)?;
        match key {
            "condition" => {
                let (kind, status) = value.split_once('=').unwrap_or((value, "True"));
                Ok(Self::Condition(kind.to_owned(), status.to_owned()))
            }
            "state" => Ok(Self::Field("/status/state".into(), value.to_owned())),
            path if path.starts_with('.') => Ok(Self::Field(path.replace('.', "/"), value.to_owned())),
            _ => Err(wrong()),
        }
    }

    /// Whether `object` is as wished, and how it is.
    fn look(&self, object: Option<&Value>) -> (bool, String) {
        let Some(object) = object else { return (*self == Self::Gone, "it is not there".into()) };
        match self {
            Self::Gone => (false, "it is still there".into()),
            Self::Condition(kind, status) => {
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                match conditions.into_iter().flatten().find(|c| c["type"] == kind.as_str()) {
                    Some(c) => {
                        let (is, why) =
                            (c["status"].as_str().unwrap_or_default(), c["message"].as_str().unwrap_or_default());
                        (is.eq_ignore_ascii_case(status), format!("{kind} is {is}: {why}"))
                    }
                    None => (false, format!("it has no condition {kind} yet")),
                }
            }
            Self::Field(path, wanted) => {
                let found = object.pointer(path).cloned().unwrap_or_default();
                let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                (text == *wanted, format!("{} is {text}", path.replace('/', ".")))
            }
        }
    }
}

impl Wait {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let (word, name) = kinds::one(&self.object)?;
        let at = globals.hub().await?;
        let kind = kinds::find(&at.client, &word).await?;
        let api = kind.api(&at.client, Some(&at.namespace));
        let shown = format!("{} `{}`", kind.resource.kind.to_lowercase(), kinds::place(&kind, &at.namespace, &name));
        let end = Instant::now() + self.timeout;
        loop {
            let found = api.get_opt(&name).await.map_err(Failure::api(&shown))?;
            let value = found.map(|object| serde_json::to_value(object).unwrap_or_default());
            let (done, how) = self.wish.look(value.as_ref());
            if done {
                let document = json!({"kind": kind.resource.kind, "name": name, "met": true});
                return globals.output.show(&document, || format!("{shown}: {how}"));
            }
            if Instant::now() >= end {
                return Err(Failure::failed(format!("{shown}: not so within {:?}: {how}", self.timeout)));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_read_and_looked_at() {
        let object = json!({"status": {"state": "Succeeded", "nodes": 3,
            "conditions": [{"type": "Ready", "status": "False", "message": "lost"}]}});
        for (wish, met) in [
            ("condition=Ready", false),
            ("condition=Ready=False", true),
            ("condition=Other", false),
            ("state=Succeeded", true),
            (".status.nodes=3", true),
            (".status.none=3", false),
            ("delete", false),
        ] {
            assert_eq!(Wish::parse(wish).unwrap().look(Some(&object)).0, met, "{wish}");
        }
        assert!(Wish::Gone.look(None).0);
        for bad in ["", "Ready", "condition=", "nodes=3"] {
            assert!(Wish::parse(bad).is_err(), "{bad}");
        }
    }
}
