//! One admission review: the stamp as a patch, or a refusal. Pure. Source: Kubernetes, admission.k8s.io/v1; the same rules as the
//! embedded API server's `Stamp`.

use atoll_api::kinds::{GROUP, REQUESTER, VOTER, join_groups};
use serde_json::{Map, Value, json};

/// Resources whose creator is stamped, with the annotation. That of the groups ends in `-groups`.
pub(super) const STAMPED: &[(&str, &str)] = &[("replicationrequests", REQUESTER), ("replicationapprovals", VOTER)];

/// The answer to the review in `body`.
pub(super) fn answer(body: &[u8]) -> Result<Value, String> {
    let review: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let request = &review["request"];
    let uid = request["uid"].as_str().filter(|u| !u.is_empty()).ok_or("no request.uid")?;
    let mut response = match judge(request) {
        Ok(patch) if patch.is_empty() => json!({"allowed": true}),
        Ok(patch) => json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(&Value::Array(patch))}),
        Err(why) => json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": why}}),
    };
    response["uid"] = uid.into();
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

/// The patch that stamps, empty where nothing is to be done.
fn judge(request: &Value) -> Result<Vec<Value>, String> {
    let (group, resource) = (&request["resource"]["group"], &request["resource"]["resource"]);
    let Some((_, annotation)) = STAMPED.iter().find(|(plural, _)| group == GROUP && resource == plural) else {
        return Ok(Vec::new());
    };
    let creates = match request["operation"].as_str() {
        Some("CREATE") => true,
        Some("UPDATE") => false,
        _ => return Ok(Vec::new()),
    };
    let user = request["userInfo"]["username"].as_str().unwrap_or_default();
    if creates && user.is_empty() {
        return Err(format!("annotation {annotation}: the API server names no user"));
    }
    let groups: Vec<&str> =
        request["userInfo"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let given = &request["object"]["metadata"]["annotations"];
    let before = &request["oldObject"]["metadata"]["annotations"];
    let mut patch = Vec::new();
    for (annotation, fresh) in
        [((*annotation).to_owned(), user.to_owned()), (format!("{annotation}-groups"), join_groups(groups))]
    {
        let held = if creates { Some(fresh) } else { before[&annotation].as_str().map(str::to_owned) };
        match (given[&annotation].as_str(), held) {
            (Some(given), Some(held)) if given == held => {}
            (Some(_), _) => {
                return Err(format!(
                    "annotation {annotation} names the authenticated user and is set by the server; it can neither be set nor changed"
                ));
            }
            (None, Some(held)) => {
                if patch.is_empty() && !given.is_object() {
                    patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": Map::new()}));
                }
                // RFC 6901 §3: `/` in a name is written `~1`.
                let path = format!("/metadata/annotations/{}", annotation.replace('~', "~0").replace('/', "~1"));
                patch.push(json!({"op": "add", "path": path, "value": held}));
            }
            (None, None) => {}
        }
    }
    Ok(patch)
}

fn base64(patch: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(patch.to_string())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn review(operation: &str, resource: &str, given: Value, before: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u-1", "operation": operation,
            "resource": {"group": "atoll.dev", "version": "v1alpha1", "resource": resource},
            "userInfo": {"username": "dev", "groups": ["developers", "system:authenticated"]},
            "object": {"metadata": {"name": "web-2", "annotations": given}},
            "oldObject": {"metadata": {"annotations": before}},
        }})
    }

    /// The annotations after the review, or why it was refused.
    fn judged(review: &Value) -> Result<Value, String> {
        let answer = answer(review.to_string().as_bytes()).unwrap();
        let response = &answer["response"];
        assert_eq!(response["uid"], "u-1");
        if response["allowed"] == false {
            assert_eq!(response["status"]["code"], 403);
            return Err(response["status"]["message"].as_str().unwrap().to_owned());
        }
        let mut object = review["request"]["object"].clone();
        if let Some(patch) = response["patch"].as_str() {
            let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
            let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
            json_patch::patch(&mut object, &patch).unwrap();
        }
        Ok(object["metadata"]["annotations"].clone())
    }

    #[test]
    fn the_user_is_stamped_and_nobody_else_can_be() {
        let stamp =
            json!({"atoll.dev/requester": "dev", "atoll.dev/requester-groups": "developers,system:authenticated"});
        let with = |key: &str, value: &str| {
            let mut all = stamp.clone();
            all[key] = value.into();
            all
        };
        let vote = json!({"atoll.dev/voter": "dev", "atoll.dev/voter-groups": "developers,system:authenticated"});
        let rr = "replicationrequests";
        let mut odd = review("CREATE", rr, Value::Null, Value::Null);
        odd["request"]["userInfo"]["groups"] = json!(["visitors,approvers"]);
        for (name, review, expected) in [
            ("no annotations", review("CREATE", rr, Value::Null, Value::Null), Ok(stamp.clone())),
            ("others are kept", review("CREATE", rr, json!({"a": "b"}), Value::Null), Ok(with("a", "b"))),
            ("a vote", review("CREATE", "replicationapprovals", Value::Null, Value::Null), Ok(vote)),
            (
                "a comma in a group",
                odd,
                Ok(json!({"atoll.dev/requester": "dev", "atoll.dev/requester-groups": "visitors%2Capprovers"})),
            ),
            ("the truth is no lie", review("CREATE", rr, stamp.clone(), Value::Null), Ok(stamp.clone())),
            (
                "somebody else",
                review("CREATE", rr, json!({"atoll.dev/requester": "alice"}), Value::Null),
                Err("atoll.dev/requester names"),
            ),
            (
                "other groups",
                review("CREATE", rr, json!({"atoll.dev/requester-groups": "approvers"}), Value::Null),
                Err("atoll.dev/requester-groups names"),
            ),
            ("an update by another", review("UPDATE", rr, with("x", "y"), stamp.clone()), Ok(with("x", "y"))),
            ("taken away, put back", review("UPDATE", rr, json!({}), stamp.clone()), Ok(stamp.clone())),
            (
                "changed",
                review("UPDATE", rr, with("atoll.dev/requester", "eve"), stamp.clone()),
                Err("can neither be set nor changed"),
            ),
            ("set later", review("UPDATE", rr, stamp.clone(), json!({})), Err("can neither be set nor changed")),
            ("other kinds", review("CREATE", "bundles", json!({"a": "b"}), Value::Null), Ok(json!({"a": "b"}))),
            ("deletes", review("DELETE", rr, Value::Null, stamp.clone()), Ok(Value::Null)),
        ] {
            match (judged(&review), expected) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{name}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{name}: {got}"),
                (got, want) => panic!("{name}: {got:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_review_is_refused_with_a_reason() {
        for (body, says) in [("", "EOF"), ("{", "EOF"), ("[]", "uid"), ("{}", "uid"), ("\u{0}", "expected")] {
            let refused = answer(body.as_bytes()).unwrap_err();
            assert!(refused.contains(says), "{body:?}: {refused}");
        }
    }
}
