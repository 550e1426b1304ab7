//! Files that people and other programs read, and the names in a listener's certificate.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use atoll_reach::host_and_port;

/// Writes a file that its owner alone may read, in the place of an older one.
///
/// # Errors
/// As the file system says, with the file's name: the disk may be full, or the directory not ours.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace(path, &path.with_extension("next"), 0o600, content).with_context(|| format!("write {}", path.display()))
}

/// Replaces a file as a whole: writes `next` (with `mode`, less the umask), then puts it in the place of `path`.
///
/// # Errors
/// As the file system says; `path` is what it was then.
pub(crate) fn replace(path: &Path, next: &Path, mode: u32, content: &[u8]) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(next)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(next, path)
}

/// The names of a listener's certificate: how it is advertised, where it listens, and this machine.
pub(crate) fn names(advertised: &str, at: SocketAddr) -> Vec<String> {
    let host = host_and_port(advertised).map_or(advertised, |(host, _)| host).to_owned();
    let mut names = vec![host, at.ip().to_string(), "localhost".into(), "127.0.0.1".into(), "kubernetes".into()];
    names.retain(|name| name.parse::<std::net::IpAddr>().map_or(true, |ip| !ip.is_unspecified()));
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}
