//! What has to be done so that a closure is at the destination: a pure difference.
//!
//! Input: a [`Closure`] and what the destination has. Output: blobs to send, blobs to take over from another repository there,
//! manifests children first, tags last. Never: a request. Planning what was just carried out gives an empty plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    closure::{Blob, Closure, Node},
    endpoint::Root,
    name::Digest,
};

/// What a destination was found to have, of what a closure needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// Blobs, by repository.
    pub blobs: BTreeSet<(String, Digest)>,
    /// Manifests, by repository.
    pub manifests: BTreeSet<(String, Digest)>,
    /// Tags, by repository.
    pub tags: BTreeMap<(String, String), Digest>,
}

/// A blob that another repository of the destination has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The blob, with the repository that lacks it.
    pub blob: Blob,
    /// The repository that has it by then.
    pub from: String,
}

/// What to do, in this order: `copies`, `mounts`, `manifests`, `tags`. Within each of the first two, any order and all at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blobs to send: one repository for each.
    pub copies: Vec<Blob>,
    /// Blobs to take over, once `copies` are done.
    pub mounts: Vec<Mount>,
    /// Manifests to write, one height after another.
    pub manifests: Vec<Vec<Node>>,
    /// Tags to write.
    pub tags: Vec<Root>,
    /// Bytes of `copies` and `manifests`.
    pub bytes: u64,
    /// Blobs and manifests that are there already.
    pub skipped: u64,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.mounts.is_empty() && self.manifests.is_empty() && self.tags.is_empty()
    }
}

/// What `present` lacks of `closure`.
pub fn plan(closure: &Closure, present: &Present) -> Plan {
    let mut plan = Plan::default();
    // who has, or will have, a blob
    let mut owners: BTreeMap<&Digest, &str> = present.blobs.iter().map(|(repo, d)| (d, repo.as_str())).collect();
    let mut planned = BTreeSet::new();
    for blob in &closure.blobs {
        let place = (blob.to_repository.clone(), blob.digest.clone());
        if present.blobs.contains(&place) {
            plan.skipped += 1;
        } else if !planned.insert(place) {
            // two repositories of the source go to one of the destination
        } else if let Some(from) = owners.get(&blob.digest) {
            plan.mounts.push(Mount { blob: blob.clone(), from: (*from).to_owned() });
        } else {
            owners.insert(&blob.digest, &blob.to_repository);
            plan.bytes = plan.bytes.saturating_add(blob.size);
            plan.copies.push(blob.clone());
        }
    }
    // the largest first: else the last one is waited for alone
    plan.copies.sort_by_key(|b| std::cmp::Reverse(b.size));

    let mut by_height: BTreeMap<usize, Vec<Node>> = BTreeMap::new();
    for node in &closure.manifests {
        if present.manifests.contains(&(node.to_repository.clone(), node.manifest.digest.clone())) {
            plan.skipped += 1;
        } else {
            plan.bytes = plan.bytes.saturating_add(node.manifest.body.len() as u64);
            by_height.entry(node.height).or_default().push(node.clone());
        }
    }
    plan.manifests = by_height.into_values().collect();

    let lacks = |root: &&Root| {
        let tag = root.tag.as_ref();
        tag.is_some_and(|tag| present.tags.get(&(root.to_repository.clone(), tag.clone())) != Some(&root.digest))
    };
    plan.tags = closure.roots.iter().filter(lacks).cloned().collect();
    plan
}

#[cfg(test)]
mod tests;
