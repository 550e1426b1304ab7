//! The console's page as HTML, from what it shows. Pure; every word of a member's or a person's is escaped.

use std::fmt::{self, Display, Write as _};

use atoll_api::kinds::{BundleCluster, RequestState};
use atoll_api::quantity::Milli;

use super::state::{BundleState, ClusterState, ConditionState, HubState, RequestLine, Room, State};
use crate::resources::Answer;

/// Text as HTML.
struct Esc<'a>(&'a str);

impl Display for Esc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The whole page.
pub(super) fn whole(state: &State) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Atoll {apex}</title><link rel=\"stylesheet\" href=\"/page.css\"><link rel=\"icon\" href=\"data:,\">\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript></head><body>\
         <header><h1>Atoll</h1><span class=\"facts\">{hub}</span><span id=\"live\"></span></header>\
         <main>{inside}</main><script src=\"/page.js\"></script></body></html>\n",
        apex = Esc(&state.hub.apex),
        hub = hub(&state.hub),
        inside = fragment(state),
    )
}

/// What changes, for the page's script.
pub(super) fn fragment(state: &State) -> String {
    let mut out = String::with_capacity(16 << 10);
    for section in [waiting, clusters, bundles, answers, services, requests, ports] {
        out.push_str(&section(state));
    }
    let _ = write!(out, "<p class=\"dim\">as of {}</p>", Esc(&state.at));
    out
}

fn hub(hub: &HubState) -> String {
    let topology = match hub.generation {
        Some(generation) => format!("topology {}.{generation}", hub.epoch),
        None => "waiting for its members to report".to_owned(),
    };
    format!(
        "{} · hub {} · {topology} · agents join at {} · version {}",
        Esc(&hub.apex),
        Esc(&hub.id),
        Esc(&hub.advertise),
        Esc(hub.version)
    )
}

fn section(title: &str, count: usize, body: &str) -> String {
    format!("<section><h2>{title} <span class=\"count\">{count}</span></h2>{body}</section>")
}

fn empty(text: &str) -> String {
    format!("<div class=\"empty\">{text}</div>")
}

fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for head in heads {
        let _ = write!(out, "<th>{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td class=\"wide\">{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn pill(class: &str, text: &str) -> String {
    format!("<span class=\"pill {class}\">{}</span>", Esc(text))
}

fn esc(text: &str) -> String {
    Esc(text).to_string()
}

/// What waits for a person, with what to type.
fn waiting(state: &State) -> String {
    let waits: Vec<&RequestLine> = state.requests.iter().filter(|r| r.approve.is_some()).collect();
    if waits.is_empty() {
        return String::new();
    }
    let rows = waits.iter().map(|r| {
        vec![
            format!("<b>{}</b><br><span class=\"dim\">{}</span>", Esc(&r.name), Esc(&r.namespace)),
            format!("<code>{}</code>", Esc(&r.images.join(", "))),
            format!("{} → {}", Esc(&r.from), Esc(&r.to)),
            esc(&r.requester),
            esc(&r.message),
            format!("<code class=\"cmd\">{}</code>", Esc(r.approve.as_deref().unwrap_or_default())),
        ]
    });
    let heads = ["Request", "Images", "Flow", "Requested by", "State", "Approve with"];
    section("Waiting for approval", waits.len(), &table(&heads, rows))
}

fn clusters(state: &State) -> String {
    if state.clusters.is_empty() {
        let how = "No cluster has joined yet: <code class=\"cmd\">atoll token create NAME</code> prints the command that joins one.";
        return section("Clusters", 0, &empty(how));
    }
    let cards: String = state.clusters.iter().map(cluster).collect();
    section("Clusters", state.clusters.len(), &format!("<div class=\"cards\">{cards}</div>"))
}

fn cluster(c: &ClusterState) -> String {
    let ready = c.conditions.iter().find(|k| k.kind == "Ready");
    let (class, word) = match ready {
        Some(k) if k.status == "True" && c.conditions.iter().all(|k| mark(k).0 != "bad") => ("good", "Ready"),
        Some(k) if k.status == "True" => ("warn", "Ready, but"),
        Some(k) if k.status == "False" => ("bad", "Not ready"),
        Some(_) => ("warn", "Joining"),
        None => ("", "Unknown"),
    };
    let place = [&c.environment, &c.region, &c.zone, &c.provider];
    let place: Vec<&str> = place.into_iter().map(String::as_str).filter(|w| !w.is_empty()).collect();
    let mut facts = vec![c.role.clone(), format!("set {}", c.set)];
    facts.extend(Some(&c.reach).filter(|r| !r.is_empty()).map(|r| format!("reached {}", reached(r))));
    facts.push(format!("sync {}", c.sync));
    facts.extend(Some(&c.version).filter(|v| !v.is_empty()).cloned());
    facts.extend(c.nodes.map(|n| format!("{n} {}", if n == 1 { "node" } else { "nodes" })));
    let conditions: String = c.conditions.iter().map(condition).collect();
    let room: String = c.room.iter().map(room).collect();
    format!(
        "<article class=\"card {class}\"><h3>{name} {pill}</h3><div class=\"where\">{place}<br>{facts}</div>\
         <ul class=\"conditions\">{conditions}</ul>{room}</article>",
        name = Esc(&c.name),
        pill = pill(class, word),
        place = Esc(&place.join(" · ")),
        facts = Esc(&facts.join(" · ")),
        room = if room.is_empty() { String::new() } else { format!("<div class=\"room\">{room}</div>") },
    )
}

fn reached(reach: &str) -> &str {
    match reach {
        "Relay" => "through its agent",
        "Direct" => "directly",
        other => other,
    }
}

/// How a condition is shown: class and sign.
fn mark(c: &ConditionState) -> (&'static str, &'static str) {
    match (c.status.as_str(), c.reason.as_str()) {
        ("True", _) if c.kind != "Conflict" => ("good", "✓"),
        // Names-only members are not kept in step, and are not meant to be.
        (_, "NamesOnly" | "NoConflicts") => ("", "–"),
        ("Unknown", _) => ("warn", "?"),
        _ => ("bad", "✗"),
    }
}

fn condition(c: &ConditionState) -> String {
    let (class, sign) = mark(c);
    let why = [c.reason.as_str(), c.message.as_str()].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>();
    format!(
        "<li title=\"since {since}\"><span class=\"mark {class}\">{sign}</span><span>{kind}</span><span class=\"why\">{why}</span></li>",
        since = Esc(&c.since),
        kind = Esc(&c.kind),
        why = Esc(&why.join(": ")),
    )
}

fn room(r: &Room) -> String {
    let (free, whole) = (Milli::parse(&r.free).unwrap_or_default(), Milli::parse(&r.capacity).unwrap_or_default());
    let used = (whole.0 - free.0).clamp(0, whole.0.max(0));
    format!(
        "<span>{what}</span><meter min=\"0\" max=\"{max}\" value=\"{used}\" title=\"used\"></meter><span>{free} of {whole} free</span>",
        what = Esc(r.resource),
        max = whole.0.max(1),
        free = amount(r.resource, free),
        whole = amount(r.resource, whole),
    )
}

/// Memory in binary units, the rest in whole ones or tenths. What is overcommitted has no room.
fn amount(resource: &str, m: Milli) -> String {
    let m = m.max(Milli(0));
    if resource == "memory" {
        let mib = m.units() >> 20;
        return if mib.abs() >= 10 * 1024 { format!("{} GiB", mib >> 10) } else { format!("{mib} MiB") };
    }
    let tenths = m.0 / 100;
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

fn bundles(state: &State) -> String {
    if state.bundles.is_empty() {
        return section("Bundles", 0, &empty("Nothing is placed: a Bundle says what is to run where."));
    }
    let rows = state.bundles.iter().map(|b| {
        vec![
            format!("<b>{}</b><br><span class=\"dim\">{}</span>", Esc(&b.name), Esc(&b.namespace)),
            b.conditions.iter().map(|c| pill(mark(c).0, &c.kind) + " ").collect(),
            placed(b),
        ]
    });
    section("Bundles", state.bundles.len(), &table(&["Bundle", "Conditions", "Where"], rows))
}

fn placed(b: &BundleState) -> String {
    let mut lines: Vec<String> = b.clusters.iter().filter(|c| c.state != "Excluded").map(line).collect();
    let left_out: Vec<&str> = b.clusters.iter().filter(|c| c.state == "Excluded").map(|c| c.name.as_str()).collect();
    if !left_out.is_empty() {
        lines.push(format!("<span class=\"dim\">not in {}</span>", Esc(&left_out.join(", "))));
    }
    let bad = b.conditions.iter().filter(|c| c.status != "True" && !c.message.is_empty());
    lines.extend(bad.map(|c| format!("<span class=\"dim\">{}: {}</span>", Esc(&c.kind), Esc(&c.message))));
    lines.join("<br>")
}

fn line(c: &BundleCluster) -> String {
    let class = match c.state.as_str() {
        "Ready" => "good",
        "Failed" | "Lost" => "bad",
        _ => "warn",
    };
    let count = c.replicas.filter(|_| c.state != "Lost").map(|n| format!(" {}/{n}", c.ready.unwrap_or(0)));
    let count = count.unwrap_or_default();
    let why = c.message.as_deref().map(|m| format!(" <span class=\"dim\">{}</span>", Esc(m))).unwrap_or_default();
    format!("{} <b>{}</b>{count}{why}", pill(class, &c.state), Esc(&c.name))
}

fn answers(state: &State) -> String {
    let Some(found) = &state.answers else {
        return section("What DNS and gateway answer now", 0, &empty("They did not answer within 2 s."));
    };
    if found.is_empty() {
        return String::new();
    }
    let rows = found.iter().map(|a: &Answer| {
        let sign = if a.ok { pill("good", "ok") } else { pill("bad", "fails") };
        vec![esc(&a.from), format!("<code>{}</code>", Esc(&a.asked)), format!("<code>{}</code>", Esc(&a.answer)), sign]
    });
    section("What DNS and gateway answer now", found.len(), &table(&["From", "Asked", "Answer", ""], rows))
}

fn services(state: &State) -> String {
    if state.services.is_empty() {
        return String::new();
    }
    let apex = &state.hub.apex;
    let rows = state.services.iter().map(|s| {
        vec![
            format!("<b>{}</b><br><span class=\"dim\">{}</span>", Esc(&s.name), Esc(&s.namespace)),
            esc(&s.set),
            format!("<code>{}.{}.svc.{}</code>", Esc(&s.name), Esc(&s.namespace), Esc(apex)),
            esc(&s.ports.join(", ")),
            esc(&s.clusters.join(", ")),
        ]
    });
    section("Services", state.services.len(), &table(&["Service", "Set", "Name", "Ports", "Exported by"], rows))
}

fn requests(state: &State) -> String {
    let others: Vec<&RequestLine> = state.requests.iter().filter(|r| r.approve.is_none()).collect();
    if others.is_empty() {
        return String::new();
    }
    let rows = others.iter().map(|r| {
        let class = match r.state {
            RequestState::Succeeded => "good",
            RequestState::Failed | RequestState::Rejected | RequestState::Stale => "bad",
            _ => "",
        };
        vec![
            format!("<b>{}</b><br><span class=\"dim\">{}</span>", Esc(&r.name), Esc(&r.namespace)),
            format!("<code>{}</code>", Esc(&r.images.join(", "))),
            format!("{} → {}", Esc(&r.from), Esc(&r.to)),
            esc(&r.requester),
            pill(class, &format!("{:?}", r.state)),
            format!("{}<br><span class=\"dim\">{}</span>", Esc(&r.message), Esc(&r.votes.join(", "))),
        ]
    });
    section("Image requests", others.len(), &table(&["Request", "Images", "Flow", "Requested by", "State", ""], rows))
}

fn ports(state: &State) -> String {
    let sites = state.sites.iter().map(|s| {
        let from = [&s.cluster, &s.region].into_iter().filter(|w| !w.is_empty()).map(String::as_str);
        let from = from.collect::<Vec<_>>().join(", ");
        let from =
            if from.is_empty() { String::new() } else { format!(" <span class=\"dim\">in {}</span>", Esc(&from)) };
        vec![format!("{} {}{from}", Esc(&s.kind), Esc(&s.instance)), code(&s.addresses.join(", "))]
    });
    let rows: Vec<Vec<String>> =
        state.ports.iter().map(|p| vec![esc(&p.what), code(&p.address)]).chain(sites).collect();
    if rows.is_empty() {
        return String::new();
    }
    section("Ports", rows.len(), &table(&["What", "Where"], rows))
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<code class=\"cmd\">{}</code>", Esc(text)) }
}

#[cfg(test)]
mod tests {
    use super::super::state::Port;
    use super::*;

    #[test]
    fn nothing_that_a_member_says_becomes_markup() {
        let evil = "<script>alert('x')</script>".to_owned();
        let condition = ConditionState {
            kind: "Ready".into(),
            status: "False".into(),
            reason: evil.clone(),
            message: evil.clone(),
            since: "\" onclick=\"x".into(),
        };
        let cluster = ClusterState {
            name: evil.clone(),
            version: evil.clone(),
            conditions: vec![condition],
            ..Default::default()
        };
        let answer = Answer { from: "DNS".into(), asked: evil.clone(), answer: evil.clone(), ok: false };
        let port = Port { what: evil.clone(), address: evil };
        let state =
            State { clusters: vec![cluster], answers: Some(vec![answer]), ports: vec![port], ..State::default() };
        let html = whole(&state);
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"));
        assert_eq!(html.matches("<script").count(), 1, "only our own");
        assert!(!html.contains("\" onclick"));
    }

    #[test]
    fn amounts_read_well() {
        for (resource, quantity, shown) in [
            ("CPU", "3500m", "3.5"),
            ("CPU", "8", "8"),
            ("CPU", "-250m", "0"),
            ("memory", "16Gi", "16 GiB"),
            ("memory", "3Gi", "3072 MiB"),
            ("pods", "110", "110"),
        ] {
            assert_eq!(amount(resource, Milli::parse(quantity).unwrap()), shown, "{resource} {quantity}");
        }
    }
}
