//! What `atoll up` says when it is ready: one line of JSON, or a table of ports and commands that work when pasted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::federation::Federation;
use super::rundir::RunDir;
use super::view::{self, HOST, SERVICE};
use crate::files;

/// Writes `ready.json` and says that it is ready.
pub(super) fn ready(federation: &Federation, json: bool, run_dir: &RunDir) -> anyhow::Result<()> {
    for (name, member) in federation.members().iter() {
        let file = run_dir.member(name.as_str());
        std::fs::create_dir_all(file.parent().unwrap_or(run_dir.path()))?;
        files::write_private(&file, member.kubeconfig()?.as_bytes())?;
    }
    let mut line = line(federation, run_dir);
    let shown = if json { format!("{line}\n") } else { page(federation, run_dir)? };
    line["admin"] = json!(dialed(federation.at().admin).to_string());
    files::write_private(&run_dir.ready(), line.to_string().as_bytes())?;
    let mut out = std::io::stdout().lock();
    // Whoever reads it may have gone; what runs goes on.
    let _ = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

fn line(federation: &Federation, run_dir: &RunDir) -> Value {
    let at = federation.at();
    let members: Vec<Value> = federation
        .members()
        .iter()
        .map(|(name, member)| {
            let kubeconfig = run_dir.member(name.as_str());
            json!({"name": name, "dns": member.dns().to_string(), "api": member.api_url(), "kubeconfig": kubeconfig})
        })
        .collect();
    json!({
        "ready": true,
        "kubeconfig": run_dir.kubeconfig(),
        "dns": dialed(at.dns).to_string(),
        "http": dialed(at.http).to_string(),
        "https": dialed(at.https).to_string(),
        "api": format!("https://{}", dialed(at.api)),
        "console": format!("http://{}/", dialed(at.console)),
        "members": members,
    })
}

/// The address to dial for one that is listened on.
fn dialed(mut at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    at
}

fn page(federation: &Federation, run_dir: &RunDir) -> anyhow::Result<String> {
    let at = federation.at();
    let mut page = String::from("Atoll is up. Ctrl-C ends it.\n\n");
    let mut rows = view::rows(federation.config(), at);
    for (name, member) in federation.members().iter() {
        rows.push((format!("member {name}"), format!("{}   DNS {}", member.api_url(), member.dns())));
    }
    let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    for (what, at) in rows {
        writeln!(page, "  {what:width$}   {at}")?;
    }
    page.push_str("\nTry:\n\n");
    for command in commands(federation, run_dir) {
        writeln!(page, "  {command}")?;
    }
    page.push('\n');
    Ok(page)
}

/// Commands that are complete: address, port and kubeconfig stand in each.
fn commands(federation: &Federation, run_dir: &RunDir) -> Vec<String> {
    let (at, apex) = (federation.at(), &federation.config().apex);
    let kubeconfig = quoted(&run_dir.kubeconfig().display().to_string());
    let atoll = format!("{} --kubeconfig {kubeconfig}", program());
    let dig = format!("dig @{} -p {}", dialed(at.dns).ip(), at.dns.port());
    let mut all = vec![format!("kubectl --kubeconfig {kubeconfig} get clusters")];
    if federation.members().is_empty() {
        all.push(format!("{atoll} token create my-cluster"));
        return all;
    }
    let mut names = federation.members().names();
    if let Some(name) = names.clone().find(|name| name.as_str() == "prod-eu").or_else(|| names.next()) {
        all.push(format!("{dig} {SERVICE}.{name}.{apex}"));
    }
    all.push(format!("{dig} {SERVICE}.{apex}"));
    all.push(format!("{dig} {HOST}"));
    all.push(format!("curl -H 'Host: {HOST}' http://{}/", dialed(at.http)));
    let https = dialed(at.https);
    let certificate = quoted(&run_dir.path().join("shop.crt").display().to_string());
    if run_dir.path().join("shop.crt").exists() {
        all.push(format!("curl --cacert {certificate} --connect-to ::{https} https://{HOST}/"));
    }
    all.push(format!("kubectl --kubeconfig {kubeconfig} -n shop get bundles,httproutes,replicationrequests"));
    if federation.members().get("prod-eu").is_some() {
        let own = quoted(&run_dir.member("prod-eu").display().to_string());
        all.push(format!("kubectl --kubeconfig {own} -n shop get pods"));
        all.push(format!("{atoll} demo break prod-eu"));
        all.push(format!("{atoll} demo heal prod-eu"));
        all.push(format!("{atoll} --context atoll-approver image approve web-1 -n shop"));
    }
    all
}

/// This program, as it can be called from anywhere.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "atoll".into(), |exe| quoted(&exe.display().to_string()))
}

/// A word that a shell takes as one.
fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@:=".contains(&b));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
