//! The members behind the ServiceImports of the suite: whole clusters whose pods, Services and exports the suite makes.
//!
//! In: the testbed, the hub's cluster. Out: Clusters that are Ready, each with an agent of its own inside the hub (`sync: Push`), and the words
//! by which the suite finds them.

use std::time::Duration;

use serde_json::Value;

use super::{MEMBER, bring_images};
use crate::error::Result;
use crate::home::write;
use crate::member::Member;
use crate::programs::Programs;
use crate::shell::{run, wait};
use crate::spec::MemberSpec;
use crate::testbed::Testbed;

/// Name and cluster set of each: two of the hub's default set, one of another.
const MEMBERS: [(&str, &str); 3] = [("east", "prod"), ("west", "prod"), ("far", "far")];
/// An agent joins and its member is Ready well within this.
const READY: Duration = Duration::from_secs(90);

/// As they are asked of the testbed.
pub(super) fn specs() -> impl Iterator<Item = MemberSpec> {
    MEMBERS.iter().map(|(name, _)| MemberSpec::named(name))
}

/// Makes all of them members of the hub in [`MEMBER`].
pub(super) async fn join(testbed: &Testbed, programs: &Programs) -> Result<()> {
    let hub = testbed.member(MEMBER)?;
    for (name, set) in MEMBERS {
        let member = testbed.member(name)?;
        bring_images(&member, programs).await?;
        enlist(&hub, &member, set, programs).await?;
    }
    for (name, _) in MEMBERS {
        ready(&hub, name, programs).await?;
    }
    Ok(())
}

/// `NAME=KUBECONFIG` of each.
pub(super) fn said(testbed: &Testbed) -> Result<String> {
    let words = MEMBERS.iter().map(|(name, _)| {
        let member = testbed.member(name)?;
        Ok(format!("{name}={}", member.kubeconfig().display()))
    });
    Ok(words.collect::<Result<Vec<String>>>()?.join(","))
}

/// A Cluster that the hub dials, and the Secret that it dials it by.
async fn enlist(hub: &Member<'_>, member: &Member<'_>, set: &str, programs: &Programs) -> Result<()> {
    let kubectl = programs.path("kubectl").display().to_string();
    let (own, theirs) = (hub.kubeconfig().display().to_string(), member.kubeconfig().display().to_string());
    let flat = run(&[&kubectl, "--kubeconfig", &theirs, "config", "view", "--raw", "--flatten"]).await?;
    let name = member.name();
    let secret = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"kubeconfig": flat},
        "metadata": {"name": format!("{name}-kubeconfig"), "namespace": "atoll-system"}});
    let cluster = serde_json::json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name},
        "spec": {"environment": "prod", "clusterSet": set,
            "sync": {"mode": "Push", "kubeconfigRef": {"name": format!("{name}-kubeconfig")}}}});
    let file = hub.dir().join(format!("{name}.json"));
    write(&file, serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [secret, cluster]}).to_string())?;
    run(&[&kubectl, "--kubeconfig", &own, "apply", "--filename", &file.display().to_string()]).await.map(drop)
}

async fn ready(hub: &Member<'_>, name: &str, programs: &Programs) -> Result<()> {
    let kubectl = programs.path("kubectl").display().to_string();
    let own = hub.kubeconfig().display().to_string();
    wait(&format!("member `{name}` is Ready at the hub"), READY, || async {
        let said = run(&[&kubectl, "--kubeconfig", &own, "get", "cluster", name, "-o", "json"]).await;
        let cluster: Value = serde_json::from_str(&said.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let conditions = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == "Ready");
        match found {
            Some(found) if found["status"] == "True" => Ok(()),
            found => Err(found.map_or("no condition Ready yet".to_owned(), Value::to_string)),
        }
    })
    .await
}
