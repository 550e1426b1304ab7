//! What a route's status says, held in little memory: with thousands of routes the words that are said of most of them weigh as much as what these
//! say. Pure.

use atoll_api::kinds::Condition;
use atoll_api::kinds::gateway::{GATEWAY_CONTROLLER, ParentReference, RouteParentStatus, RouteStatus};
use jiff::Timestamp;

use super::condition::{SERVED, merge};

/// What is said, by parent.
#[derive(Debug, Clone)]
pub(crate) struct Said(Box<[OfParent]>);

/// What is said of one.
#[derive(Debug, Clone)]
enum OfParent {
    /// By us: that it is served, and everything that it names is there.
    Served {
        /// The parent's place among those that the route names.
        parent: usize,
        generation: Option<i64>,
        since: Timestamp,
    },
    Other(Box<RouteParentStatus>),
}

impl Said {
    /// What `status` says. `named`: the parents that the route names.
    pub(crate) fn of(status: Option<RouteStatus>, named: &[ParentReference]) -> Self {
        let parents = status.map(|status| status.parents).unwrap_or_default();
        Self(parents.into_iter().map(|said| OfParent::of(said, named)).collect())
    }

    /// The same as it is written.
    pub(crate) fn parents(&self, named: &[ParentReference]) -> Vec<RouteParentStatus> {
        self.0.iter().map(|said| said.written(named)).collect()
    }
}

impl OfParent {
    fn of(said: RouteParentStatus, named: &[ParentReference]) -> Self {
        let place = named.iter().position(|parent| *parent == said.parent_ref);
        if let (Some(parent), Some(first)) = (place, said.conditions.first()) {
            let served =
                Self::Served { parent, generation: first.observed_generation, since: first.last_transition_time.0 };
            if served.written(named) == said {
                return served;
            }
        }
        Self::Other(Box::new(said))
    }

    fn written(&self, named: &[ParentReference]) -> RouteParentStatus {
        match self {
            Self::Served { parent, generation, since } => RouteParentStatus {
                parent_ref: named.get(*parent).cloned().unwrap_or_default(),
                controller_name: GATEWAY_CONTROLLER.to_owned(),
                conditions: served(*generation, *since),
            },
            Self::Other(said) => (**said).clone(),
        }
    }
}

fn served(generation: Option<i64>, since: Timestamp) -> Vec<Condition> {
    merge(&[], SERVED.iter().cloned(), generation, since)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn a_status_says_what_it_said_and_only_what_is_common_is_short() {
        let condition = |kind: &str, status: &str, message: &str, second: u8| {
            json!({"type": kind, "status": status, "reason": kind, "message": message, "observedGeneration": 3,
                "lastTransitionTime": format!("2026-11-29T10:00:0{second}Z")})
        };
        let resolved = condition("ResolvedRefs", "True", "everything that it names is there", 1);
        let accepted = |status: &str, message: &str, second| condition("Accepted", status, message, second);
        let served = accepted("True", "the route is served", 1);
        let common = json!([served, resolved]);
        for (name, parent, controller, conditions, is_short) in [
            ("the common one", "a", GATEWAY_CONTROLLER, common.clone(), true),
            ("the other parent", "b", GATEWAY_CONTROLLER, common.clone(), true),
            ("a parent that is not named", "c", GATEWAY_CONTROLLER, common.clone(), false),
            ("another controller", "a", "example.com/other", common, false),
            ("another order", "a", GATEWAY_CONTROLLER, json!([resolved, served]), false),
            (
                "two times",
                "a",
                GATEWAY_CONTROLLER,
                json!([accepted("True", "the route is served", 2), resolved]),
                false,
            ),
            ("refused", "a", GATEWAY_CONTROLLER, json!([accepted("False", "the route is served", 1), resolved]), false),
            ("other words", "a", GATEWAY_CONTROLLER, json!([accepted("True", "fine", 1), resolved]), false),
            (
                "more",
                "a",
                GATEWAY_CONTROLLER,
                json!([served, resolved, condition("PartiallyInvalid", "True", "", 1)]),
                false,
            ),
            ("none", "a", GATEWAY_CONTROLLER, json!([]), false),
        ] {
            let named: Vec<ParentReference> = from_value(json!([{"name": "a"}, {"name": "b"}])).unwrap();
            let said = |parent: &str, conditions: &Value| {
                let said =
                    json!({"parentRef": {"name": parent}, "controllerName": controller, "conditions": conditions});
                from_value::<RouteParentStatus>(said).unwrap()
            };
            let parents = vec![said("z", &json!([])), said(parent, &conditions)];
            let held = Said::of(Some(RouteStatus { parents: parents.clone() }), &named);
            assert_eq!(matches!(held.0[1], OfParent::Served { .. }), is_short, "{name}");
            assert_eq!(held.parents(&named), parents, "{name}");
        }
    }
}
