//! The store over files: what was acknowledged stays, damage is named, a full disk loses nothing.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase as _, StorageBackend, TableDefinition};
use serde_json::json;

use super::*;
use crate::{ApiServer, Config, Storage};

const LIMITS: Limits = Limits { history_len_max: 100, history_bytes_max: 1 << 20, batch_len_max: 16 };

fn key(name: &str) -> Key {
    Key::new(&"/configmaps".into(), "default", name)
}

fn write(name: &str, len: usize) -> Write {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "x".repeat(len)},
        "metadata": {"name": name, "namespace": "default", "uid": uuid(name)}});
    Write { key: key(name), expect: Expect::Absent, value: Some(value) }
}

/// A uid that belongs to the name.
fn uuid(name: &str) -> String {
    let hash = name.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    format!("00000000-0000-4000-8000-{:012x}", hash & 0xffff_ffff_ffff)
}

async fn filled(path: &Path, names: &[&str]) {
    let store = Store::on_disk(LIMITS, Disk::open(path).unwrap()).unwrap();
    for name in names {
        store.commit(write(name, 100)).await.unwrap();
    }
    store.close();
}

fn refused(path: &Path) -> Error {
    match Disk::open(path).and_then(|disk| Store::on_disk(LIMITS, disk)) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_under_the_same_revision() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let before = {
        let store = Store::on_disk(LIMITS, Disk::open(&path).unwrap()).unwrap();
        let stored = store.commit(write("a", 10)).await.unwrap();
        store.commit(write("b", 10)).await.unwrap();
        store
            .commit(Write { key: key("b"), expect: Expect::Revision(stored.revision + 1), value: None })
            .await
            .unwrap();
        store.close();
        (stored.revision, stored.bytes.clone())
    };
    let store = Store::on_disk(LIMITS, Disk::open(&path).unwrap()).unwrap();
    let held = store.get(&key("a")).unwrap();
    assert_eq!((held.revision, held.bytes.clone()), before);
    assert!(store.get(&key("b")).is_none());
    let next = store.commit(write("c", 10)).await.unwrap();
    assert_eq!(next.revision, before.0 + 3, "revisions never come twice, not even those of deletions");
}

#[tokio::test]
async fn a_record_that_was_damaged_is_named_and_the_file_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    filled(&path, &["good", "damaged"]).await;
    let table: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
    {
        let database = Database::open(&path).unwrap();
        let at = key("damaged").to_disk();
        let mut record = {
            let read = database.begin_read().unwrap();
            read.open_table(table).unwrap().get(&*at).unwrap().unwrap().value().to_vec()
        };
        let middle = record.len() / 2;
        record[middle] ^= 1;
        let write = database.begin_write().unwrap();
        write.open_table(table).unwrap().insert(&*at, &*record).unwrap();
        write.commit().unwrap();
    }
    let error = refused(&path);
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("/configmaps default damaged") && text.contains("restore a snapshot"), "{text}");
    // The good one is still there for whoever repairs it.
    let database = Database::open(&path).unwrap();
    let read = database.begin_read().unwrap();
    let records = read.open_table(table).unwrap();
    let good = records.get(&*key("good").to_disk()).unwrap().unwrap();
    assert!(Stored::decode(&key("good").to_disk(), good.value()).is_some());
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("text"), "dear diary\n".repeat(1000)).unwrap();
    fs::write(at("short"), "x").unwrap();
    filled(&at("cut"), &["a"]).await;
    let whole = fs::read(at("cut")).unwrap();
    fs::write(at("cut"), &whole[..whole.len() / 3]).unwrap();
    {
        let other: TableDefinition<'_, &str, u64> = TableDefinition::new("accounts");
        let database = Database::create(at("other")).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(other).unwrap().insert("me", 7).unwrap();
        write.commit().unwrap();
    }
    filled(&at("later"), &["a"]).await;
    {
        let about: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
        let database = Database::open(at("later")).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(about).unwrap().insert("format", 99).unwrap();
        write.commit().unwrap();
    }
    for name in ["text", "short", "cut", "other", "later"] {
        let before = fs::read(at(name)).unwrap();
        let error = refused(&at(name)).to_string();
        assert!(error.contains(&at(name).display().to_string()), "{name}: {error}");
        let foreign = error.contains("not a data file of this server, or of a later version; it was left as it is");
        assert!(foreign || name == "cut", "{name}: {error}");
        // Opening a database of redb's at all lets it tidy up its own pages.
        assert!(["other", "later"].contains(&name) || fs::read(at(name)).unwrap() == before, "{name} was changed");
    }
    fs::create_dir(at("folder")).unwrap();
    assert!(refused(&at("folder")).to_string().contains("folder"));
    // One that is in use is refused, too, and goes on being used.
    let store = Store::on_disk(LIMITS, Disk::open(&at("used")).unwrap()).unwrap();
    let error = refused(&at("used"));
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    store.commit(write("a", 10)).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_for_a_client_is_a_data_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::in_memory(LIMITS, 1);
    let held = store.commit(write("a", 100)).await.unwrap();
    let path = dir.path().join("copy.redb");
    fs::write(&path, store.snapshot_bytes().unwrap()).unwrap();
    let copy = Store::on_disk(LIMITS, Disk::open(&path).unwrap()).unwrap();
    let stored = copy.get(&key("a")).unwrap();
    assert_eq!((stored.revision, &stored.bytes), (held.revision, &held.bytes));
}

#[tokio::test]
async fn a_snapshot_is_put_in_the_place_of_a_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("state.redb"), dir.path().join("copy.redb"));
    let server = ApiServer::open(Config::default(), Storage::File(path.clone())).await.unwrap();
    server.snapshot(&copy).await.unwrap();
    assert!(matches!(server.snapshot(&copy).await, Err(Error::Exists { .. })), "a snapshot never overwrites");
    assert!(matches!(ApiServer::restore(&copy, &path).await, Err(Error::Locked { .. })), "not under a running server");
    let revision = server.revision();
    server.close().await;
    let good = fs::read(&path).unwrap();
    let mut scrambled = good.clone();
    scrambled[4096..].fill(0xa5);
    for damaged in [&b"damaged"[..], b"", &scrambled] {
        fs::write(&path, damaged).unwrap();
        let refused = ApiServer::restore(&path, &copy).await.unwrap_err();
        assert!(refused.to_string().contains("state.redb"), "what is damaged is no snapshot: {refused}");
        ApiServer::restore(&copy, &path).await.unwrap();
        // Opening a database of redb's at all lets it tidy up its own pages.
        let held = fs::read(path.with_extension("before-restore")).unwrap();
        assert!(held == damaged || damaged != b"damaged", "what was there is kept");
        assert!(!path.with_extension("restoring").exists());
    }
    let server = ApiServer::open(Config::default(), Storage::File(path)).await.unwrap();
    assert!(server.revision() > revision + 1_000_000, "who watched what came after the snapshot lists again");
    server.close().await;
}

/// A disk of a size that the test sets, in memory; it outlives the files on it.
#[derive(Debug, Clone, Default)]
struct Small {
    ram: Ram,
    room: Arc<AtomicU64>,
}

impl Small {
    fn disk(&self) -> Disk {
        let small = self.clone();
        let open = move || Database::builder().create_with_backend(small.clone());
        Disk::with(Path::new("small"), Box::new(open)).unwrap()
    }
}

impl StorageBackend for Small {
    fn len(&self) -> Result<u64, io::Error> {
        self.ram.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.ram.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        if len > self.room.load(Ordering::SeqCst) && len > self.ram.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.ram.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.ram.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_what_it_has_and_goes_on_when_there_is_room() {
    let small = Small::default();
    small.room.store(4 << 20, Ordering::SeqCst);
    let store = Store::on_disk(LIMITS, small.disk()).unwrap();
    let mut names: Vec<String> = Vec::new();
    let refused = loop {
        let name = format!("m{}", names.len());
        match store.commit(write(&name, 200_000)).await {
            Ok(_) => names.push(name),
            Err(refused) => break refused,
        }
        assert!(names.len() < 100, "the disk is never full");
    };
    assert!(matches!(&refused, Unwritten::Disk { full: true, .. }), "{refused:?}");
    assert!(!names.is_empty());
    // Nothing that was refused shows, everything else is there, and refusing goes on.
    assert!(store.get(&key(&format!("m{}", names.len()))).is_none());
    assert!(names.iter().all(|name| store.get(&key(name)).is_some()));
    assert!(matches!(store.commit(write("more", 200_000)).await, Err(Unwritten::Disk { .. })));
    // With room it goes on without a restart.
    small.room.store(16 << 20, Ordering::SeqCst);
    store.commit(write("later", 200_000)).await.unwrap();
    names.push("later".into());
    store.close();
    let store = Store::on_disk(LIMITS, small.disk()).unwrap();
    assert!(names.iter().all(|name| store.get(&key(name)).is_some()));
    assert!(store.get(&key("more")).is_none());
}
