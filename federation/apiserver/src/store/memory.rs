//! All objects by collection, in key order, with the changes since some revision.
//! In: changes that were checked; out: objects, lists as of a revision, and what changed after one.
//! It never fails and never touches the disk.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::sync::watch;

use super::{Expect, Key, Limits, Stored, Unwritten, Write};

/// Namespace and name: the order of lists.
pub(crate) type Place = (Box<str>, Box<str>);

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Stored>>,
    /// The new state; none for a deletion.
    pub(crate) after: Option<Arc<Stored>>,
    /// For a deletion: the last state under the revision of the deletion.
    last: Option<Arc<Stored>>,
}

impl Change {
    /// The object to show: the new state, or the last one before the deletion.
    pub(crate) fn stored(&self) -> &Arc<Stored> {
        self.after.as_ref().or(self.last.as_ref()).expect("a change has a new state or a last one")
    }

    fn bytes_len(&self) -> usize {
        // The state before is shared with an older change or lived in the map: count it once, as the older one's.
        self.stored().bytes.len() + 128
    }
}

/// Checks a write against the object's present state and gives it its revision.
pub(super) fn prepare(
    key: &Key,
    present: Option<&Arc<Stored>>,
    write: &Write,
    revision: u64,
) -> Result<Change, Unwritten> {
    match (write.expect, present) {
        (Expect::Absent, Some(_)) => return Err(Unwritten::Exists),
        (Expect::Revision(_), None) => return Err(Unwritten::Missing),
        (Expect::Revision(want), Some(stored)) if stored.revision != want => return Err(Unwritten::Modified),
        _ => {}
    }
    let before = present.cloned();
    let (after, last) = match &write.value {
        Some(value) => (Some(Arc::new(Stored::pack(value.clone(), revision))), None),
        None => {
            let stored = before.as_ref().ok_or(Unwritten::Missing)?;
            (None, Some(Arc::new(Stored::pack(stored.value(), revision))))
        }
    };
    Ok(Change { revision, key: key.clone(), before, after, last })
}

/// The objects of one resource.
#[derive(Debug)]
pub(crate) struct Collection {
    objects: BTreeMap<Place, Arc<Stored>>,
    history: VecDeque<Change>,
    history_bytes: usize,
    /// Changes up to this revision are forgotten.
    compacted: u64,
    changed: watch::Sender<u64>,
}

impl Collection {
    fn new(compacted: u64) -> Self {
        let changed = watch::Sender::new(compacted);
        Self { objects: BTreeMap::new(), history: VecDeque::new(), history_bytes: 0, compacted, changed }
    }

    /// All objects, or those of one namespace, in order.
    pub(crate) fn iter<'a>(
        &'a self,
        namespace: &'a str,
    ) -> Box<dyn Iterator<Item = (&'a Place, &'a Arc<Stored>)> + 'a> {
        if namespace.is_empty() {
            return Box::new(self.objects.iter());
        }
        let from: Place = (namespace.into(), "".into());
        Box::new(self.objects.range(from..).take_while(move |((ns, _), _)| **ns == *namespace))
    }

    /// The changes after a revision, oldest first; none if they are (partly) forgotten.
    pub(crate) fn since(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        if revision < self.compacted {
            return None;
        }
        let from = self.history.partition_point(|change| change.revision <= revision);
        Some(self.history.range(from..))
    }

    /// What was different at a revision: for each object changed since, its state then. None if that is forgotten.
    pub(crate) fn as_of(&self, revision: u64) -> Option<HashMap<Place, Option<Arc<Stored>>>> {
        let mut then = HashMap::new();
        for change in self.since(revision)? {
            let place = (change.key.namespace.clone(), change.key.name.clone());
            then.entry(place).or_insert_with(|| change.before.clone());
        }
        Some(then)
    }

    /// Wakes at every change of this collection.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn push(&mut self, change: Change, limits: &Limits) {
        self.history_bytes += change.bytes_len();
        let revision = change.revision;
        self.history.push_back(change);
        while self.history.len() > limits.history_len_max || self.history_bytes > limits.history_bytes_max {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= oldest.bytes_len();
            self.compacted = oldest.revision;
        }
        self.changed.send_replace(revision);
    }
}

/// The whole state.
pub(crate) struct Memory {
    limits: Limits,
    revision: u64,
    /// The revision at which this process began: older changes are not known.
    began: u64,
    collections: HashMap<Arc<str>, Collection>,
    by_uid: HashMap<u128, Key>,
    owned: HashMap<u128, HashSet<Key>>,
}

impl Memory {
    pub(super) fn new(limits: Limits, revision: u64) -> Self {
        Self {
            limits,
            revision,
            began: revision,
            collections: HashMap::new(),
            by_uid: HashMap::new(),
            owned: HashMap::new(),
        }
    }

    /// The revision of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Stored>> {
        self.collections.get(&key.collection)?.objects.get(&(key.namespace.clone(), key.name.clone()))
    }

    pub(crate) fn collection(&self, name: &str) -> Option<&Collection> {
        self.collections.get(name)
    }

    /// The names of all collections that were ever written.
    pub(crate) fn collections(&self) -> impl Iterator<Item = (&Arc<str>, &Collection)> {
        self.collections.iter()
    }

    pub(crate) fn by_uid(&self, uid: u128) -> Option<&Key> {
        self.by_uid.get(&uid)
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn owned_by(&self, uid: u128) -> impl Iterator<Item = &Key> {
        self.owned.get(&uid).into_iter().flatten()
    }

    /// Makes sure that a collection exists, so that it can be watched while empty.
    pub(super) fn ensure(&mut self, name: &Arc<str>) {
        let began = self.began;
        self.collections.entry(name.clone()).or_insert_with(|| Collection::new(began));
    }

    /// Puts in an object read from disk, without history.
    pub(super) fn load(&mut self, key: Key, stored: Stored) {
        self.ensure(&key.collection);
        let stored = Arc::new(stored);
        self.index(&key, None, Some(&stored));
        if let Some(collection) = self.collections.get_mut(&key.collection) {
            collection.objects.insert((key.namespace, key.name), stored);
        }
    }

    /// Ends loading: the history begins here.
    pub(super) fn begin_at(&mut self, revision: u64) {
        self.revision = revision;
        self.began = revision;
        for collection in self.collections.values_mut() {
            collection.compacted = revision;
            collection.changed.send_replace(revision);
        }
    }

    /// Carries out a change that `prepare` made from the present state.
    pub(super) fn apply(&mut self, change: Change) {
        self.revision = change.revision;
        self.ensure(&change.key.collection);
        self.index(&change.key, change.before.as_ref(), change.after.as_ref());
        let limits = self.limits;
        let Some(collection) = self.collections.get_mut(&change.key.collection) else { return };
        let place = (change.key.namespace.clone(), change.key.name.clone());
        match &change.after {
            Some(stored) => collection.objects.insert(place, stored.clone()),
            None => collection.objects.remove(&place),
        };
        collection.push(change, &limits);
    }

    fn index(&mut self, key: &Key, before: Option<&Arc<Stored>>, after: Option<&Arc<Stored>>) {
        if let Some(before) = before {
            self.by_uid.remove(&before.uid);
            for owner in &before.owners {
                if let Some(keys) = self.owned.get_mut(owner) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.owned.remove(owner);
                    }
                }
            }
        }
        if let Some(after) = after {
            self.by_uid.insert(after.uid, key.clone());
            for owner in &after.owners {
                self.owned.entry(*owner).or_default().insert(key.clone());
            }
        }
    }

    /// Every object, for a snapshot.
    pub(super) fn all(&self) -> Vec<(Key, Arc<Stored>)> {
        let mut all = Vec::new();
        for (name, collection) in &self.collections {
            for ((namespace, object), stored) in &collection.objects {
                all.push((Key::new(name, namespace, object), stored.clone()));
            }
        }
        all
    }
}
