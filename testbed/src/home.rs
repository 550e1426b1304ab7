//! Where a checkout's testbed keeps its things, and who may use it now.
//! One folder and one lock a checkout, named by a hash of the checkout's path, so that two checkouts don't meet.
//! The state file is written before anything is made, so that `down` finds what a crash left.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::plan::{Block, MemberPlan};

/// Where every checkout's testbed lives; short, because socket paths have at most 107 bytes.
const ROOT: &str = "/var/lib/atoll-testbed";
/// How long a killed process may take to let go of its lock.
const HELD_MAX: Duration = Duration::from_secs(1);

/// The folder of one checkout's testbed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The checkout, for messages.
    pub checkout: PathBuf,
    /// Eight hexadecimal digits of the checkout's hash.
    pub key: String,
    /// The same hash as a number, for the choice of the block.
    pub hash: u64,
    /// The folder.
    pub dir: PathBuf,
}

/// How far `up` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// `up` is at work or died at it.
    Starting,
    /// All conditions held.
    Up,
}

/// What a testbed consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The checkout that it belongs to.
    pub checkout: PathBuf,
    /// Its addresses.
    pub block: Block,
    /// How far it is.
    pub phase: Phase,
    /// Its members.
    pub members: Vec<MemberPlan>,
    /// Whether an API server for a hub is there.
    pub hub: bool,
    /// Whether Consul is there.
    pub lab: bool,
}

impl State {
    /// That of a testbed that is up.
    ///
    /// # Errors
    /// None was made, or not to its end.
    pub fn up(state: Option<Self>) -> Result<Self> {
        let why = match state {
            Some(state) if state.phase == Phase::Up => return Ok(state),
            Some(_) => {
                "the testbed of this checkout is half made: `up` is at work still, or died; then `cargo testbed down` takes away what is there"
            }
            None => "no testbed of this checkout is up: `cargo testbed up` brings one",
        };
        Err(Error::Refused(why.into()))
    }
}

/// Held while somebody uses a checkout's testbed; the system frees it when the holder dies.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// The checkout that we work for: whose cargo runs us, else in which we stand, else from which we were built. That one comes last: checkouts
/// that share cargo's output share this program, too, and cargo builds it for the first of them alone.
pub(crate) fn checkout() -> PathBuf {
    let cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let stood_in = std::env::current_dir().ok();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    first([cargo, stood_in], built.parent().unwrap_or(built))
}

/// The checkout around the first of these folders that is in one.
fn first(folders: [Option<PathBuf>; 2], built: &Path) -> PathBuf {
    let around =
        |folder: &Path| folder.ancestors().find(|above| above.join("testbed/Cargo.toml").is_file()).map(Path::to_owned);
    folders.iter().flatten().find_map(|folder| around(folder)).unwrap_or_else(|| built.to_owned())
}

impl Home {
    /// The home of the checkout that we work for.
    #[must_use]
    pub fn here() -> Self {
        Self::of(&checkout())
    }

    /// The home of a checkout.
    #[must_use]
    pub fn of(checkout: &Path) -> Self {
        let digest = Sha256::digest(checkout.as_os_str().as_encoded_bytes());
        let key = hex::encode(&digest[..4]);
        let hash = u64::from(u32::from_be_bytes([digest[4], digest[5], digest[6], digest[7]]));
        Self { checkout: checkout.to_owned(), dir: Path::new(ROOT).join(&key), key, hash }
    }

    /// The folder of a member, of hub or of lab.
    #[must_use]
    pub fn member(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a failed start leaves its logs.
    #[must_use]
    pub fn failed(&self) -> PathBuf {
        self.dir.with_extension("failed")
    }

    /// Takes the testbed for the caller alone. A holder that was just killed is given a moment to be gone.
    ///
    /// # Errors
    /// Somebody of this checkout holds it, or the folder can't be made.
    pub async fn lease(&self) -> Result<Lease> {
        fs::create_dir_all(ROOT).map_err(Error::on(Path::new(ROOT)))?;
        let path = self.dir.with_extension("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(Error::on(&path))?;
        let end = Instant::now() + HELD_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lease { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => tokio::time::sleep(HELD_MAX / 20).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Refused(format!(
                        "the testbed of {} is in use by another process (it holds {}): wait for it to end",
                        self.checkout.display(),
                        path.display()
                    )));
                }
                Err(TryLockError::Error(source)) => return Err(Error::on(&path)(source)),
            }
        }
    }

    /// The state on disk, if there is any.
    ///
    /// # Errors
    /// The file is there and can't be read as a state.
    pub fn state(&self) -> Result<Option<State>> {
        let path = self.dir.join("state.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::on(&path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::Refused(format!("{}: {error}; `cargo testbed down` clears it away", path.display()))
        })
    }

    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec_pretty(state).expect("a state is plain data");
        write(&self.dir.join("state.json.new"), &text)?;
        let path = self.dir.join("state.json");
        fs::rename(self.dir.join("state.json.new"), &path).map_err(Error::on(&path))
    }

    /// The blocks that other checkouts' testbeds hold.
    #[must_use]
    pub fn blocks_of_others(&self) -> Vec<Block> {
        let folders = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
        let others = folders.filter(|path| path.is_dir() && *path != self.dir);
        others
            .filter_map(|path| fs::read(path.join("state.json")).ok())
            .filter_map(|text| serde_json::from_slice::<State>(&text).ok())
            .map(|state| state.block)
            .collect()
    }
}

/// Writes a file and the folders above it.
///
/// # Errors
/// The disk.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::on(folder))?;
    }
    fs::write(path, content).map_err(Error::on(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_program_with_another_checkout_has_a_testbed_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let (ours, theirs) = (temp.path().join("ours"), temp.path().join("theirs"));
        for checkout in [&ours, &theirs] {
            fs::create_dir_all(checkout.join("testbed/src")).unwrap();
            fs::write(checkout.join("testbed/Cargo.toml"), "").unwrap();
        }
        let (in_ours, nowhere) = (Some(ours.join("testbed/src")), Some(temp.path().to_owned()));
        for (case, folders, expected) in [
            ("cargo says", [in_ours.clone(), Some(theirs.clone())], &ours),
            ("cargo says nothing", [None, in_ours], &ours),
            ("neither is in one", [None, nowhere], &theirs),
        ] {
            assert_eq!(&first(folders, &theirs), expected, "{case}");
        }
        assert_ne!(Home::of(&ours).dir, Home::of(&theirs).dir);
    }

    #[test]
    fn what_a_crash_left_is_told_from_what_is_up_and_from_nothing() {
        let state = |phase| State {
            checkout: PathBuf::new(),
            block: Block(1),
            phase,
            members: Vec::new(),
            hub: false,
            lab: false,
        };
        assert!(State::up(Some(state(Phase::Up))).is_ok());
        for (state, said) in [(Some(state(Phase::Starting)), "testbed down"), (None, "testbed up")] {
            assert!(State::up(state).unwrap_err().to_string().contains(said), "{said}");
        }
    }
}
