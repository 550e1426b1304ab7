//! A DNS decision as people read it, top to bottom as it was made: who asks, where the name belongs, which policy, whom, how healthy they
//! are, what came of it.
//!
//! In: the document of `/dns/explain`. Out: lines, a word for each stage in front. What is not in the document is not shown.

use serde_json::Value;

const LABEL_WIDTH: usize = 10;

/// The decision, without its records.
pub(crate) fn text(explained: &Value) -> String {
    let mut lines = Lines::default();
    lines.add("asker", asker(&explained["asker"]));
    let steps = explained["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (stage, step) in steps.iter().filter_map(Value::as_object).flatten() {
        match stage.as_str() {
            "hierarchy" => lines.add("name", place(step)),
            "policy" => list(&step["why"]).into_iter().for_each(|why| lines.add("policy", why)),
            "forward" => {
                lines.add("member", format!("{}: {}", word(&step["member"]), word(&step["outcome"])));
                lines.add("cache", cache(word(&step["cache"])));
            }
            "chain" => lines.add("chain", format!("goes on at {}", word(&step["goesOnAt"]))),
            "budget" => match step["questionsAsked"].as_u64() {
                None | Some(0) => {}
                Some(1) => lines.add("asked", "one question of others".to_owned()),
                Some(many) => lines.add("asked", format!("{many} questions of others")),
            },
            other => lines.add(other, plain(step)),
        }
    }
    if !steps.iter().any(|step| step.get("forward").is_some()) {
        lines.add("cache", "not needed: decided from what is in memory".to_owned());
    }
    health(&explained["health"]).into_iter().for_each(|said| lines.add("health", said));
    let owned = if explained["authoritative"] == true { ", authoritative" } else { "" };
    lines.add("answer", format!("{}{owned}", word(&explained["rcode"])));
    for error in explained["errors"].as_array().into_iter().flatten() {
        lines.add("answer", format!("EDE {} {}", error["code"], word(&error["text"])));
    }
    let version = &explained["topology"];
    lines.add("topology", format!("generation {} of epoch {}", version["generation"], version["epoch"]));
    list(&explained["badRecords"]).into_iter().for_each(|bad| lines.add("left out", bad));
    lines.text
}

/// Lines with the stage in front where it is another one than before.
#[derive(Default)]
struct Lines {
    text: String,
    last: String,
}

impl Lines {
    fn add(&mut self, stage: &str, said: String) {
        let label = if self.last == stage { "" } else { stage };
        self.text.push_str(format!("{label:LABEL_WIDTH$}{said}").trim_end());
        self.text.push('\n');
        stage.clone_into(&mut self.last);
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(plain).collect()
}

/// Any value in one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let shown = fields.iter().filter(|(_, value)| !value.is_null());
            shown.map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn asker(asker: &Value) -> String {
    let known = [("cluster", "cluster"), ("clusterSet", "cluster set"), ("region", "region"), ("zone", "zone")];
    let stands = known.iter().filter_map(|(key, name)| Some(format!("{name} {}", asker[key].as_str()?)));
    let recursion = if asker["recursion"] == true { "recursion allowed" } else { "no recursion" };
    let all: Vec<String> = stands.chain([recursion.to_owned()]).collect();
    format!("{} ({})", all.join(", "), word(&asker["by"]))
}

fn place(step: &Value) -> String {
    let text = |key: &str| word(&step[key]);
    let where_to = match text("place") {
        "Here" => format!("a record of zone {}", text("zone")),
        "Below" if step["refused"].is_string() => {
            format!("below cluster {}, refused: {}", text("member"), text("refused"))
        }
        "Below" if step["reverse"] == true => format!("an address of cluster {}, asked for it", text("member")),
        "Below" => format!("below cluster {}, asked for {}", text("member"), text("asked")),
        "Beside" => format!("{} in {}, zone {}", text("what"), text("scope"), text("zone")),
        "Host" => format!("a host of policy {}, zone {}", text("policy"), text("zone")),
        "Inner" => format!("an inner name of the reverse zone of cluster {}", text("member")),
        "Nowhere" => format!("no address of cluster {}", text("member")),
        "Outside" => "outside: no zone of ours".to_owned(),
        "Unknown" => "nowhere: the hub was never heard".to_owned(),
        other => other.to_owned(),
    };
    format!("{}  {where_to}", text("name"))
}

fn cache(outcome: &str) -> String {
    let means = match outcome {
        "hit" => "it was there",
        "miss" => "it was not there, so the member was asked",
        "shared" => "somebody else was asking already",
        "stale" => "what was answered before, because there is nothing newer",
        "failed" => "it failed a moment ago, and nothing was answered before",
        "above" => "a name above it does not exist",
        _ => return outcome.to_owned(),
    };
    format!("{outcome}: {means}")
}

fn health(health: &Value) -> Vec<String> {
    let source = match (word(&health["source"]), health["hubSilentSeconds"].as_u64()) {
        ("Hub", Some(0)) => "by the hub, heard just now".to_owned(),
        ("Hub", Some(silent)) => format!("by the hub, heard {silent} s ago"),
        ("Hub", None) => "by the hub".to_owned(),
        (source, Some(silent)) => format!("by {source}, the hub is silent since {silent} s"),
        (source, None) => format!("by {source}, the hub was not heard"),
    };
    let clusters = health["ready"].as_object();
    let of = |ready: bool| -> Vec<&str> {
        let all = clusters.into_iter().flatten().filter(|(_, is)| is.as_bool() == Some(ready));
        all.map(|(name, _)| name.as_str()).collect()
    };
    let mut lines = vec![source];
    for (title, names) in [("ready", of(true)), ("not ready", of(false))] {
        if !names.is_empty() {
            lines.push(format!("{title}: {}", names.join(", ")));
        }
    }
    for (title, key) in [("by relay only", "relayed"), ("probed down", "probedDown")] {
        let names = list(&health[key]);
        if !names.is_empty() {
            lines.push(format!("{title}: {}", names.join(", ")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decision_is_told_in_the_order_it_was_made() {
        let explained = json!({
            "asker": {"cluster": null, "clusterSet": "prod", "region": "eu", "zone": null, "recursion": true, "by": "region eu as asked"},
            "topology": {"epoch": 2, "generation": 41},
            "health": {"source": "Hub", "hubSilentSeconds": 3, "ready": {"prod-eu": true, "dr": false}, "relayed": ["dr"], "probedDown": []},
            "steps": [
                {"hierarchy": {"place": "Beside", "name": "web.shop.svc.a.", "zone": "a.", "scope": "the asker's cluster set", "what": "service shop/web"}},
                {"policy": {"why": ["policy shop/web", "dr: left out, not ready"]}},
                {"chain": {"goesOnAt": "x.prod-eu.a."}},
                {"hierarchy": {"place": "Below", "name": "x.prod-eu.a.", "member": "prod-eu", "asked": "x.cluster.local.", "reverse": false}},
                {"forward": {"member": "prod-eu", "outcome": "answered", "cache": "hit", "down": false}},
                {"budget": {"questionsAsked": 2}},
            ],
            "rcode": "NOERROR", "authoritative": true, "errors": [{"code": 3, "text": "old"}], "badRecords": [],
        });
        let told = [
            "asker     cluster set prod, region eu, recursion allowed (region eu as asked)",
            "name      web.shop.svc.a.  service shop/web in the asker's cluster set, zone a.",
            "policy    policy shop/web",
            "          dr: left out, not ready",
            "chain     goes on at x.prod-eu.a.",
            "name      x.prod-eu.a.  below cluster prod-eu, asked for x.cluster.local.",
            "member    prod-eu: answered",
            "cache     hit: it was there",
            "asked     2 questions of others",
            "health    by the hub, heard 3 s ago",
            "          ready: prod-eu",
            "          not ready: dr",
            "          by relay only: dr",
            "answer    NOERROR, authoritative",
            "          EDE 3 old",
            "topology  generation 41 of epoch 2",
        ];
        assert_eq!(text(&explained).lines().collect::<Vec<_>>(), told);
    }
}
