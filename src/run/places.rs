//! Files that say where addresses are: the map of ranges and the database. Read whole, whenever they are replaced.
//!
//! In: a path. Out: its octets in a watch, for the DNS server to parse. A file that is written in place is read once it has rested for a
//! look, and again if it changes while it is read, so that no half of it is handed over; one that is missing is said once and waited for.

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
        let (mut seen, mut moved, mut said) = (None, None, String::new());
        loop {
            let (at, before) = (path.clone(), (seen, moved));
            let found = tokio::task::spawn_blocking(move || read(&at, before)).await;
            let why = match found.map_err(anyhow::Error::from).flatten() {
                Ok(Look::Same) => String::new(),
                Ok(Look::Moved(stamp)) => {
                    moved = Some(stamp);
                    String::new()
                }
                Ok(Look::New(stamp, new)) => {
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

/// What a look finds.
enum Look {
    /// What was there before.
    Same,
    /// Something else than before, at which somebody may still write.
    Moved(Stamp),
    /// A file that counts.
    New(Stamp, Vec<u8>),
}

/// The file, if it is another than `seen`, and the one that was there at the last look; the first one is read at once.
fn read(path: &Path, (seen, moved): (Option<Stamp>, Option<Stamp>)) -> anyhow::Result<Look> {
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
        return Ok(Look::Same);
    }
    if seen.is_some() && moved != Some(before) {
        return Ok(Look::Moved(before));
    }
    let octets = std::fs::read(path).with_context(name)?;
    if stamp()? != before {
        bail!("{}: changed while it was read", path.display());
    }
    Ok(Look::New(before, octets))
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

    #[test]
    fn a_file_that_somebody_writes_at_is_not_read_before_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        let (mut seen, mut moved) = (None, None);
        let mut look = || match read(&path, (seen, moved)).unwrap() {
            Look::Same => "same".to_owned(),
            Look::Moved(stamp) => {
                moved = Some(stamp);
                "moved".to_owned()
            }
            Look::New(stamp, octets) => {
                seen = Some(stamp);
                String::from_utf8(octets).unwrap()
            }
        };
        let write = |content: &str| std::fs::write(&path, content).unwrap();
        write("10.0.0.0/8 eu\n");
        assert_eq!([look(), look()], ["10.0.0.0/8 eu\n", "same"]);
        // Cut, half written, whole: three looks find three files.
        for content in ["", "10.0.0.0/8 us\n", "10.0.0.0/8 us\n10.9.0.0/16 ap\n"] {
            write(content);
            assert_eq!(look(), "moved", "{content}");
        }
        assert_eq!([look(), look()], ["10.0.0.0/8 us\n10.9.0.0/16 ap\n", "same"]);
    }
}
