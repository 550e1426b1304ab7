//! Files that say where addresses are: the map of ranges and the database. Read whole, whenever they are replaced.
//!
//! In: a path. Out: its octets in a watch, for the DNS server to parse. A file that changes while it is read is read again, so that no
//! half of it is ever handed over; one that is missing is said once and waited for.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use atoll_dns::Octets;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// A database of the whole world, street by street, has less than a tenth of it.
const OCTETS_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// By what a file is known to be another: device, inode, length, time of its last change.
type Stamp = (u64, u64, u64, i64, i64);

/// Follows the file of `key` until `shutdown`.
pub(super) fn follow(
    key: &'static str,
    path: PathBuf,
    shutdown: CancellationToken,
) -> (Octets, impl Future<Output = ()>) {
    let (octets, followed) = watch::channel(None);
    let following = async move {
        let (mut seen, mut said) = (None, String::new());
        loop {
            let (at, before) = (path.clone(), seen);
            let found = tokio::task::spawn_blocking(move || read(&at, before)).await;
            let why = match found.map_err(anyhow::Error::from).flatten() {
                Ok(None) => String::new(),
                Ok(Some((stamp, new))) => {
                    seen = Some(stamp);
                    octets.send_replace(Some(new.into()));
                    String::new()
                }
                Err(error) => format!("{error:#}"),
            };
            if !why.is_empty() && why != said {
                tracing::warn!(key, why, "file not read, what was there before stays");
            }
            said = why;
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    };
    (followed, following)
}

/// The file, if it is another than `seen`.
fn read(path: &Path, seen: Option<Stamp>) -> anyhow::Result<Option<(Stamp, Vec<u8>)>> {
    let name = || path.display().to_string();
    let stamp = || -> anyhow::Result<Stamp> {
        let meta = std::fs::metadata(path).with_context(name)?;
        if meta.len() > OCTETS_MAX {
            bail!("{}: larger than {OCTETS_MAX} octets", path.display());
        }
        Ok((meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    let before = stamp()?;
    if seen == Some(before) {
        return Ok(None);
    }
    let octets = std::fs::read(path).with_context(name)?;
    if stamp()? != before {
        bail!("{}: changed while it was read", path.display());
    }
    Ok(Some((before, octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_is_handed_over_whenever_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let end = CancellationToken::new();
        let (mut octets, following) = follow("dns.cidrMap", path.clone(), end.clone());
        let following = tokio::spawn(following);
        for content in ["10.0.0.0/8 eu\n", "10.0.0.0/8 us-east\n", ""] {
            // The way in which Kubernetes and careful people replace a file.
            std::fs::write(path.with_extension("next"), content).unwrap();
            std::fs::rename(path.with_extension("next"), &path).unwrap();
            let is = |o: &Option<bytes::Bytes>| o.as_deref() == Some(content.as_bytes());
            octets.wait_for(is).await.unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        tokio::time::sleep(EVERY * 3).await;
        assert!(octets.borrow().is_some(), "what was there before stays");
        end.cancel();
        following.await.unwrap();
    }
}
