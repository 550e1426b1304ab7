//! What the agent tells the member's own resolver, as the file says: by the table that `atoll dns stub` prints from, into a ConfigMap (which is
//! the agent's work) or into a file of this machine, which is done here.
//!
//! In: `agent.stub`. Out: a [`Stub`] for the agent. A file is ours if its first line says so; any other is left alone. It is replaced by
//! rename, under a name that resolvers do not read, and the resolver is told by the command that the file names. Of a file that is the
//! resolver's own ([`json`]) a part is ours.

mod json;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use atoll_agents::{Keep, Place, Stub};
use atoll_api::topology::StubFacts;
use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::stub as resolvers;
use crate::config;
use crate::error::Exit;
use crate::files;

/// The first line of a file of ours; what stands behind is for people.
const MARK: &str = "# atoll: kept by the agent";
const RELOAD_MAX: Duration = Duration::from_secs(30);
/// Of what a command that failed says.
const SAID_MAX: usize = 300;

/// As the file says.
///
/// # Errors
/// [`Exit::Usage`]: no such resolver, or one that needs a path, or that can't be told by a file of ours.
pub(super) fn stub(said: &config::Stub) -> anyhow::Result<Stub> {
    let usage = |why: String| Exit::Usage(format!("agent.stub: {why}"));
    resolvers::known(&said.resolver).map_err(usage)?;
    let place = match (said.resolver.as_str(), &said.path) {
        ("coredns", None) => Place::CoreDns,
        ("kube-dns", None) => Place::KubeDns,
        ("kube-dns", Some(_)) => return Err(usage("kube-dns reads a ConfigMap, so there is no path".into()).into()),
        (name, None) => return Err(usage(format!("{name} is told by a file: set agent.stub.path")).into()),
        (name, Some(path)) => {
            let file = File { path: path.clone(), reload: said.reload.clone(), pending: AtomicBool::new(true) };
            if name == "mesos-dns" { Place::Here(Arc::new(Part(file))) } else { Place::Here(Arc::new(file)) }
        }
    };
    let name = said.resolver.clone();
    let write = move |facts: &StubFacts| resolvers::text(&name, facts);
    Ok(Stub { enabled: said.enabled, place, write: Arc::new(write), servers: said.servers.clone() })
}

/// A file of ours.
struct File {
    path: PathBuf,
    reload: Vec<String>,
    /// The resolver has not read what is there, as far as we know.
    pending: AtomicBool,
}

#[async_trait]
impl Keep for File {
    fn place(&self) -> String {
        format!("the resolver that reads {}", self.path.display())
    }

    async fn put(&self, text: &str) -> Result<bool, String> {
        let whole = format!("{MARK} as agent.stub says; a file that does not begin so is left alone\n{text}\n");
        let changed = self.held()?.is_none_or(|held| held != whole);
        if changed {
            self.pending.store(true, Ordering::Relaxed);
            replace(&self.path, &whole, 0o666).map_err(|e| format!("{}: {e}", self.path.display()))?;
        }
        self.read_anew().await?;
        Ok(changed)
    }

    async fn remove(&self) -> Result<bool, String> {
        if self.held()?.is_none() {
            return Ok(false);
        }
        std::fs::remove_file(&self.path).map_err(|e| format!("{}: {e}", self.path.display()))?;
        self.pending.store(true, Ordering::Relaxed);
        self.read_anew().await?;
        Ok(true)
    }
}

impl File {
    /// What is there; an error if it is not ours.
    fn held(&self) -> Result<Option<String>, String> {
        let name = self.path.display();
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text.starts_with(MARK) => Ok(Some(text)),
            Ok(_) => Err(format!("{name} does not begin with `{MARK}`, so it is somebody else's and left alone")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{name}: {e}")),
        }
    }

    /// Has the resolver read what is there, once for each change.
    async fn read_anew(&self) -> Result<(), String> {
        let Some((program, words)) = self.reload.split_first() else { return Ok(()) };
        if !self.pending.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).kill_on_drop(true);
        let shown = self.reload.join(" ");
        let ended = timeout(RELOAD_MAX, command.output()).await;
        let ended = ended.map_err(|_| format!("`{shown}` has not ended within 30 s"))?;
        let ended = ended.map_err(|e| format!("`{shown}`: {e}"))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said: String = said.trim().chars().take(SAID_MAX).collect();
            return Err(format!("`{shown}`: {}: {said}", ended.status));
        }
        self.pending.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// A part of ours in the one file of Mesos-DNS.
struct Part(File);

#[async_trait]
impl Keep for Part {
    fn place(&self) -> String {
        format!("the Mesos-DNS that reads {}", self.0.path.display())
    }

    async fn put(&self, text: &str) -> Result<bool, String> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Said {
            zone_resolvers: json::Zones,
        }
        let said: Said = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let held = self.held()?;
        let next = json::put(&held, &said.zone_resolvers).map_err(|why| self.named(&why))?;
        let changed = next != held;
        if changed {
            self.write(&next)?;
        }
        self.0.read_anew().await?;
        Ok(changed)
    }

    async fn remove(&self) -> Result<bool, String> {
        let Some(before) = json::take(&self.held()?).map_err(|why| self.named(&why))? else { return Ok(false) };
        self.write(&before)?;
        self.0.read_anew().await?;
        Ok(true)
    }
}

impl Part {
    fn named(&self, why: &str) -> String {
        format!("{}: {why}", self.0.path.display())
    }

    fn held(&self) -> Result<String, String> {
        std::fs::read_to_string(&self.0.path).map_err(|e| self.named(&e.to_string()))
    }

    /// It may hold secrets: who may read it stays as it was.
    fn write(&self, text: &str) -> Result<(), String> {
        self.0.pending.store(true, Ordering::Relaxed);
        let may = std::fs::metadata(&self.0.path).map(|about| about.permissions());
        let written = may.and_then(|may| {
            replace(&self.0.path, text, 0o600)?;
            std::fs::set_permissions(&self.0.path, may)
        });
        written.map_err(|e| self.named(&e.to_string()))
    }
}

/// Replaces a file as a whole; resolvers that read a directory pass over the name in between.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let next = path.with_file_name(format!(".{}.atoll~", name.to_string_lossy()));
    files::replace(path, &next, mode, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(resolver: &str, path: Option<PathBuf>, reload: &[&str]) -> config::Stub {
        let reload = reload.iter().map(|word| (*word).to_owned()).collect();
        config::Stub { enabled: true, resolver: resolver.into(), servers: Vec::new(), path, reload }
    }

    #[tokio::test]
    async fn a_file_of_ours_is_put_mended_and_taken_away_and_the_resolver_told_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let (path, count) = (dir.path().join("atoll.conf"), dir.path().join("count"));
        let reload = format!("printf x >> {}", count.display());
        let stub = stub(&said("unbound", Some(path.clone()), &["sh", "-c", &reload])).unwrap();
        let Place::Here(keep) = &stub.place else { panic!("a file") };
        let facts =
            StubFacts { apex: "atoll.internal".into(), servers: vec!["192.0.2.53".into()], reverse: Vec::new() };
        let text = (stub.write)(&facts).unwrap();
        let told = || std::fs::read_to_string(&count).unwrap_or_default().len();
        assert_eq!((keep.put(&text).await, keep.put(&text).await, told()), (Ok(true), Ok(false), 1));
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written.contains("forward-addr: 192.0.2.53@53"), "{written}");
        std::fs::write(&path, format!("{MARK}\nforward-zone: meddled\n")).unwrap();
        assert_eq!((keep.put(&text).await, told()), (Ok(true), 2));
        assert_eq!((keep.remove().await, keep.remove().await, told()), (Ok(true), Ok(false), 3));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left but what we counted in");
    }

    #[tokio::test]
    async fn a_file_of_others_is_left_alone_and_a_resolver_that_does_not_take_it_is_told_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, flag) = (dir.path().join("atoll.conf"), dir.path().join("ready"));
        let reload = format!("test -e {} || {{ echo not yet >&2; false; }}", flag.display());
        let stub = stub(&said("dnsmasq", Some(path.clone()), &["sh", "-c", &reload])).unwrap();
        let Place::Here(keep) = &stub.place else { panic!("a file") };
        std::fs::write(&path, "server=/corp.example/10.0.0.9\n").unwrap();
        assert!(keep.put("x").await.unwrap_err().contains("left alone"));
        assert!(keep.remove().await.unwrap_err().contains("left alone"));
        std::fs::remove_file(&path).unwrap();
        assert!(keep.put("x").await.unwrap_err().contains("not yet"));
        std::fs::write(&flag, "").unwrap();
        assert_eq!(keep.put("x").await, Ok(false), "what is written already is read at last");
    }

    #[tokio::test]
    async fn mesos_dns_is_told_in_its_own_file_which_is_as_it_was_afterwards() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (path, count) = (dir.path().join("config.json"), dir.path().join("count"));
        let before =
            "{\n \"zk\": \"zk://10.0.0.1:2181/mesos\",\n \"zoneResolvers\": {\"weave\": [\"172.17.0.1\"]}\n}\n";
        std::fs::write(&path, before).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let reload = format!("printf x >> {}", count.display());
        let stub = stub(&said("mesos-dns", Some(path.clone()), &["sh", "-c", &reload])).unwrap();
        let Place::Here(keep) = &stub.place else { panic!("a file") };
        let facts = |server: &str| StubFacts {
            apex: "atoll.internal".into(),
            servers: vec![server.into()],
            reverse: vec!["22.10.in-addr.arpa".into()],
        };
        let told = || std::fs::read_to_string(&count).unwrap_or_default().len();
        for (server, times) in [("192.0.2.53", 1), ("192.0.2.54", 2)] {
            let text = (stub.write)(&facts(server)).unwrap();
            assert_eq!((keep.put(&text).await, keep.put(&text).await, told()), (Ok(true), Ok(false), times));
            let held: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let zones = &held["zoneResolvers"];
            for zone in ["atoll.internal", "clusterset.local", "22.10.in-addr.arpa"] {
                assert_eq!(zones[zone], serde_json::json!([server]), "{held}");
            }
            assert_eq!(zones["weave"], serde_json::json!(["172.17.0.1"]));
        }
        assert!((stub.write)(&facts("192.0.2.53:5353")).unwrap_err().contains("port 53 only"));
        assert_eq!((keep.remove().await, keep.remove().await, told()), (Ok(true), Ok(false), 3));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        // What somebody has written anew is nobody's to guess.
        let text = (stub.write)(&facts("192.0.2.53")).unwrap();
        keep.put(&text).await.unwrap();
        let meddled = std::fs::read_to_string(&path).unwrap().replace("192.0.2.53", "192.0.2.99");
        std::fs::write(&path, meddled.replacen("192.0.2.99", "192.0.2.53", 1)).unwrap();
        assert!(keep.put(&text).await.unwrap_err().contains("by hand"));
    }

    #[test]
    fn resolvers_that_cannot_be_told_so_are_refused_at_the_start() {
        for (resolver, path, says) in [
            ("bind", None, "no such resolver"),
            ("unbound", None, "set agent.stub.path"),
            ("mesos-dns", None, "set agent.stub.path"),
            ("kube-dns", Some("/x"), "there is no path"),
        ] {
            let why = format!("{:#}", stub(&said(resolver, path.map(PathBuf::from), &[])).unwrap_err());
            assert!(why.contains(says), "{resolver}: {why}");
        }
        assert!(matches!(stub(&said("coredns", None, &[])).unwrap().place, Place::CoreDns));
    }
}
