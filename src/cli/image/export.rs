//! `atoll image export FILE`: this very program and the shared libraries it names, as a container image.
//!
//! What comes out is a docker-archive: `ctr -n k8s.io images import FILE`, `docker load -i FILE`. Its entrypoint is `atoll`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Globals;
use super::elf;
use super::layer::{self, Contents};
use crate::cli::failure::{Failure, Outcome};

const PROGRAM: &str = "/usr/bin/atoll";
/// Names of hosts are looked up as on any machine.
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\natoll:x:65532:65532:atoll:/:/sbin/nologin\n";
const USER: &str = "65532:65532";

/// Write this program as a container image.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// The archive to write
    file: PathBuf,
    /// The image's name
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("atoll:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

impl Export {
    /// Runs it. Needs no API server.
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let name = full_name(&self.name)?;
        let own = Path::new("/proc/self/exe");
        let program = own.read_link().map_err(|e| Failure::failed(format!("find this program: {e}")))?;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let needed = elf::closure(own, &elf::loaded_from(&maps))
            .map_err(|e| Failure::failed(format!("image of {}: {e}", program.display())))?;
        let mut libraries: Vec<String> =
            needed.keys().filter_map(|path| Some(path.parent()?.display().to_string())).collect();
        libraries.dedup();
        let files = needed.into_iter().map(|(path, file)| (path, file, 0o755));
        let contents = Contents {
            name: &name,
            files: std::iter::once((PROGRAM.into(), own.to_owned(), 0o755)).chain(files).collect(),
            texts: vec![("/etc/nsswitch.conf".into(), NSSWITCH), ("/etc/passwd".into(), PASSWD)],
            entrypoint: PROGRAM,
            environment: vec!["PATH=/usr/bin".into(), format!("LD_LIBRARY_PATH={}", libraries.join(":"))],
            user: USER,
        };
        let id = layer::write(&contents, &self.file)
            .map_err(|e| Failure::failed(format!("write {}: {e}", self.file.display())))?;
        let file = self.file.display().to_string();
        globals.output.show(&json!({"file": file, "name": name, "id": id}), || {
            format!("{file}: {name}\non each node: ctr -n k8s.io images import {file}")
        })
    }
}

/// `atoll:1` → `docker.io/library/atoll:1`, as container runtimes complete it.
fn full_name(name: &str) -> Outcome<String> {
    let wrong = |why: &str| {
        Failure::usage(format!("--name `{name}`: {why}; write it like atoll:{}", env!("CARGO_PKG_VERSION")))
    };
    let (repository, tag) =
        name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).ok_or_else(|| wrong("it has no tag"))?;
    let plain = |text: &str, also: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    if !plain(repository, "._-/:") || !plain(tag, "._-") || repository.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(wrong("it is no image name"));
    }
    Ok(match repository.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::full_name;

    #[test]
    fn names_are_completed_as_container_runtimes_do() {
        for (name, full) in [
            ("atoll:1", "docker.io/library/atoll:1"),
            ("me/atoll:1", "docker.io/me/atoll:1"),
            ("10.0.0.1:5000/atoll:1", "10.0.0.1:5000/atoll:1"),
            ("registry.example.com/a/b:v1.2", "registry.example.com/a/b:v1.2"),
        ] {
            assert_eq!(full_name(name).unwrap(), full);
        }
        for bad in ["atoll", "", ":1", "a b:1", "10.0.0.1:5000/atoll", "Atoll:1"] {
            assert_eq!(full_name(bad).unwrap_err().code, 2, "{bad}");
        }
    }
}
