//! `atoll image export`: the archive is one that container runtimes read, and holds all that the program needs to start.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::world::atoll;

#[tokio::test]
async fn an_exported_image_holds_the_program_and_all_that_it_loads() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("atoll.tar");
    let file = file.to_str().expect("a plain path");
    let ran = atoll(dir.path(), &["image", "export", file, "--name", "atoll:test", "-o", "json"]).await;
    ran.ended(0, "");
    assert_eq!(ran.json()["name"], "docker.io/library/atoll:test");

    // The archive: a manifest that names a config and a layer by what they are.
    let layer = dir.path().join("layer");
    let mut texts: BTreeMap<String, Value> = BTreeMap::new();
    let mut digest = String::new();
    let mut archive = tar::Archive::new(std::fs::File::open(file)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if name == "layer.tar" {
            digest = format!("sha256:{:x}", Sha256::digest(&bytes));
            tar::Archive::new(&bytes[..]).unpack(&layer)?;
        } else {
            texts.insert(name, serde_json::from_slice(&bytes)?);
        }
    }
    let manifest = &texts["manifest.json"][0];
    assert_eq!(manifest["RepoTags"][0], "docker.io/library/atoll:test");
    assert_eq!(manifest["Layers"][0], "layer.tar");
    let config = &texts[manifest["Config"].as_str().expect("a name")];
    assert_eq!(config["rootfs"]["diff_ids"][0].as_str(), Some(digest.as_str()));
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/atoll");

    // The program: started by the image's loader, it finds every library in the image.
    let inside = |path: &str| layer.join(path.trim_start_matches('/'));
    let variables = config["config"]["Env"].as_array().cloned().unwrap_or_default();
    let find = |name: &str| variables.iter().find_map(|v| v.as_str()?.strip_prefix(name).map(str::to_owned));
    let libraries = find("LD_LIBRARY_PATH=").expect("the image says where its libraries are");
    let libraries: Vec<String> = libraries.split(':').map(|d| inside(d).display().to_string()).collect();
    let loader = inside(&loader(&inside("/usr/bin/atoll")));
    let start = |first: &str| {
        let mut command = Command::new(&loader);
        command.args(["--inhibit-cache", "--library-path", &libraries.join(":"), first]);
        command
    };
    let listed = start("--list").arg(inside("/usr/bin/atoll")).output().await?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut found = 0;
    for line in listed.lines().filter(|line| line.contains("=>")) {
        assert!(line.contains(&layer.display().to_string()), "not out of the image: {line}");
        found += 1;
    }
    assert!(found > 0, "{listed}");
    let version = start(inside("/usr/bin/atoll").to_str().expect("a plain path")).arg("--version").output().await?;
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("atoll "), "{version:?}");
    Ok(())
}

/// The loader's path that the program names (its PT_INTERP), read out of its first bytes.
fn loader(program: &Path) -> String {
    let bytes = std::fs::read(program).expect("the program is there");
    let at = bytes.windows(6).position(|w| w.starts_with(b"/lib") && w.contains(&b'/')).expect("it names a loader");
    let end = bytes[at..].iter().position(|b| *b == 0).expect("a text ends");
    String::from_utf8(bytes[at..at + end].to_vec()).expect("a path")
}
