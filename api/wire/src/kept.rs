//! Last good files: what a data plane goes on with when the hub is dead. One file, checksummed, replaced by rename, readable by its owner
//! alone.
//!
//! Form: a line of JSON (what it is, of which hub, length and SHA-256 of the rest, and what the writer adds), then the rest. A file that
//! is damaged or of another hub is said and ignored, never deleted before a better one replaces it. Files that hold keys are sealed.

mod seal;

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

pub use seal::Seal;

/// Why a file was not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It can't be read.
    #[error("read: {0}")]
    Read(#[from] io::Error),
    /// Another program's, or another version's.
    #[error("is not a `{0}`")]
    Form(&'static str),
    /// Not as it was written.
    #[error("is damaged: its checksum differs")]
    Damaged,
    /// Of a hub that is not ours.
    #[error("is of hub `{0}`")]
    Foreign(String),
    /// Another site's, or not sealed at all.
    #[error("is not sealed with this site's key")]
    Sealed,
}

/// A file's bytes; the same content gives the same bytes. `about`: what else the head holds.
#[must_use]
pub fn encode(form: &'static str, hub: &str, about: &Value, body: &[u8]) -> Vec<u8> {
    let head = json!({"form": form, "hub": hub, "about": about, "length": body.len(), "sha256": sum(body)});
    let mut file = head.to_string().into_bytes();
    file.push(b'\n');
    file.extend_from_slice(body);
    file
}

/// What the head holds beside, and the body. `hub`: the id of the hub that is ours, where known.
///
/// # Errors
/// When it is not whole, of another form or of another hub.
pub fn decode<'a>(form: &'static str, file: &'a [u8], hub: Option<&str>) -> Result<(Value, &'a [u8]), Unusable> {
    let end = file.iter().position(|b| *b == b'\n').ok_or(Unusable::Form(form))?;
    let mut head: Value = serde_json::from_slice(&file[..end]).map_err(|_| Unusable::Form(form))?;
    let body = &file[end + 1..];
    if head["form"] != form {
        return Err(Unusable::Form(form));
    }
    if head["length"] != body.len() || head["sha256"] != sum(body) {
        return Err(Unusable::Damaged);
    }
    of_hub(&head, hub)?;
    Ok((head["about"].take(), body))
}

/// Whether a file with that head may be of our hub.
fn of_hub(head: &Value, hub: Option<&str>) -> Result<(), Unusable> {
    let whose = head["hub"].as_str().unwrap_or_default();
    if hub.is_some_and(|hub| hub != whose) { Err(Unusable::Foreign(whose.to_owned())) } else { Ok(()) }
}

/// A write goes on when whoever waited for it has ended; the next one must not meet it.
static WRITING: Mutex<()> = Mutex::new(());

/// Puts a file in the place of an older one: after a crash, or on a full disk, it is wholly the one or the other.
///
/// # Errors
/// As the file system says; the older one stays.
pub fn write(dir: &Path, name: &str, file: &[u8]) -> io::Result<()> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::create_dir_all(dir)?;
    let next = dir.join(format!("{name}.next"));
    let mut out = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    // Half a file is of no use to anybody, and takes room that others want back.
    out.write_all(file).and_then(|()| out.sync_all()).inspect_err(|_| drop(std::fs::remove_file(&next)))?;
    std::fs::rename(&next, dir.join(name))?;
    std::fs::File::open(dir)?.sync_all()
}

fn sum(body: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(body).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_of_this_form_and_hub_is_used() {
        let file = encode("letters-1", "hub-1", &json!(7), b"abc");
        let mut flipped = file.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let cases: [(&str, &[u8], Option<&str>, &str); 7] = [
            ("whole", &file, Some("hub-1"), ""),
            ("hub not known yet", &file, None, ""),
            ("another hub", &file, Some("hub-2"), "is of hub `hub-1`"),
            ("one bit", &flipped, Some("hub-1"), "is damaged: its checksum differs"),
            ("cut", &file[..file.len() - 1], Some("hub-1"), "is damaged: its checksum differs"),
            ("something else", b"{}\nabc", None, "is not a `letters-1`"),
            ("empty", b"", None, "is not a `letters-1`"),
        ];
        for (name, bytes, hub, wrong) in cases {
            let read = decode("letters-1", bytes, hub);
            assert_eq!(read.as_ref().err().map(ToString::to_string).unwrap_or_default(), wrong, "{name}");
            if let Ok(found) = read {
                assert_eq!(found, (json!(7), &b"abc"[..]), "{name}");
            }
        }
    }

    #[test]
    fn the_file_is_for_its_owner_alone_and_stays_when_another_can_not_be_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "x", b"one").unwrap();
        assert_eq!(std::fs::metadata(dir.path().join("x")).unwrap().permissions().mode() & 0o777, 0o600);
        // Nothing can be written where a folder is.
        std::fs::create_dir(dir.path().join("x.next")).unwrap();
        assert!(write(dir.path(), "x", b"two").is_err());
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"one");
    }
}
