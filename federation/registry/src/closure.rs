//! From images to everything that they reach.
//!
//! Input: a registry and image names. Output: roots frozen by digest, then their closure: manifests children first, blobs once a
//! repository, and one digest over all of it for an approval to bind. Reads manifests only; never a blob, never a write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    backend::{Push, RawManifest},
    endpoint::Root,
    error::{Error, Why},
    manifest::{Descriptor, References, references},
    name::{Digest, ImageRef},
    retry::Retry,
};

/// Manifests read at once.
const READS_MAX: usize = 8;
/// Index in index in index…
const DEPTH_MAX: usize = 8;
/// Manifests of one job.
const MANIFESTS_MAX: usize = 10_000;
/// Bytes of the manifests of one job, which are kept in memory.
const MANIFEST_BYTES_SUM_MAX: usize = 64 << 20;

/// A manifest of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The repository at the source.
    pub repository: String,
    /// The repository at the destination.
    pub to_repository: String,
    /// The manifest itself.
    pub manifest: RawManifest,
    /// Above its highest child; a manifest without children has 0. What refers to another by `subject` stands above that.
    pub height: usize,
}

/// A blob of a closure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// The repository at the source.
    pub repository: String,
    /// The repository at the destination.
    pub to_repository: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Everything that some roots reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// The images.
    pub roots: Vec<Root>,
    /// Their manifests, by rising height.
    pub manifests: Vec<Node>,
    /// Their blobs, sorted, once a pair of repositories.
    pub blobs: Vec<Blob>,
    /// SHA-256 over a line `<digest> <size>` for each distinct manifest and blob, the lines sorted.
    pub digest: Digest,
    /// Distinct manifests and blobs.
    pub objects: u64,
    /// Their sizes, summed.
    pub bytes: u64,
}

/// The digest that an approval binds: order and repetition don't matter, any other difference does.
pub fn closure_digest<'a>(objects: impl IntoIterator<Item = (&'a Digest, u64)>) -> Digest {
    let sorted: BTreeSet<_> = objects.into_iter().collect();
    let text: String = sorted.iter().map(|(digest, size)| format!("{digest} {size}\n")).collect();
    Digest::of(text.as_bytes())
}

/// What the images mean now. A name with both tag and digest must fit together.
pub(crate) async fn resolve(from: &dyn Push, images: &[ImageRef], retry: &Retry) -> Result<Vec<Root>, Error> {
    let one = |image: ImageRef| async move {
        let at = from.endpoint().at(&image.repository, image.reference());
        let step = || from.resolve(&image.repository, image.reference());
        let found = retry.run(&image.to_string(), step).await?.ok_or_else(|| Error::new(at, Why::NotFound))?;
        let ImageRef { repository, tag, .. } = image;
        Ok(Root { to_repository: repository.clone(), repository, tag, digest: found.digest })
    };
    stream::iter(images.to_vec()).map(one).buffered(READS_MAX).try_collect().await
}

/// Reads all manifests that `roots` reach; with `referrers`, what refers to them (signatures, bills of materials) as well.
pub(crate) async fn walk(
    from: Arc<dyn Push>,
    roots: &[Root],
    referrers: bool,
    retry: &Retry,
) -> Result<Closure, Error> {
    let mut graph = Graph::default();
    let mut next: Vec<Visit> = roots.iter().map(Visit::root).collect();
    for _ in 0..DEPTH_MAX {
        next.retain(|v| graph.seen.insert((v.to_repository.clone(), v.digest.clone())));
        if next.is_empty() {
            return graph.into_closure(roots);
        }
        let reads = next.into_iter().map(|visit| {
            let from = from.clone();
            async move { visit.read(&*from, referrers, retry).await }
        });
        let level: Vec<Found> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
        next = level.iter().flat_map(Found::visits).collect();
        for found in level {
            graph.take(found, &*from)?;
        }
    }
    let why = Why::Unsupported(format!("an index nested more than {DEPTH_MAX} deep"));
    Err(Error::new(from.endpoint().at(&roots[0].repository, roots[0].digest.as_str()), why))
}

/// A manifest to read.
struct Visit {
    repository: String,
    to_repository: String,
    digest: Digest,
    size: Option<u64>,
}

impl Visit {
    fn root(root: &Root) -> Self {
        let Root { repository, to_repository, digest, .. } = root.clone();
        Self { repository, to_repository, digest, size: None }
    }

    async fn read(self, from: &dyn Push, referrers: bool, retry: &Retry) -> Result<Found, Error> {
        let what = self.digest.as_str();
        let at = || from.endpoint().at(&self.repository, what);
        let manifest = retry.run(what, || from.manifest(&self.repository, what)).await?;
        if let Some(size) = self.size.filter(|s| *s != manifest.body.len() as u64) {
            let why = format!("manifest should have {size} bytes and has {}", manifest.body.len());
            return Err(Error::new(at(), Why::Corrupt(why)));
        }
        let refers =
            references(&manifest.media_type, &manifest.body).map_err(|why| Error::new(at(), Why::Unsupported(why)))?;
        let referrers = match referrers {
            true => retry.run(what, || from.referrers(&self.repository, &self.digest)).await?,
            false => Vec::new(),
        };
        Ok(Found { visit: self, manifest, refers, referrers })
    }
}

/// A manifest that was read.
struct Found {
    visit: Visit,
    manifest: RawManifest,
    refers: References,
    referrers: Vec<Descriptor>,
}

impl Found {
    fn visits(&self) -> impl Iterator<Item = Visit> {
        self.refers.manifests.iter().chain(&self.referrers).map(|d| Visit {
            repository: self.visit.repository.clone(),
            to_repository: self.visit.to_repository.clone(),
            digest: d.digest.clone(),
            size: Some(d.size),
        })
    }
}

#[derive(Default)]
struct Graph {
    seen: BTreeSet<(String, Digest)>,
    nodes: BTreeMap<(String, Digest), Node>,
    /// Who must be written before whom, by key.
    before: BTreeMap<(String, Digest), Vec<(String, Digest)>>,
    blobs: BTreeSet<Blob>,
    bytes: usize,
}

impl Graph {
    fn take(&mut self, found: Found, from: &dyn Push) -> Result<(), Error> {
        let Found { visit, manifest, refers, referrers } = found;
        self.bytes += manifest.body.len();
        if self.nodes.len() >= MANIFESTS_MAX || self.bytes > MANIFEST_BYTES_SUM_MAX {
            let why =
                format!("more than {MANIFESTS_MAX} manifests or {MANIFEST_BYTES_SUM_MAX} bytes of them in one job");
            return Err(Error::new(
                from.endpoint().at(&visit.repository, visit.digest.as_str()),
                Why::Unsupported(why),
            ));
        }
        let Visit { repository, to_repository, digest, .. } = visit;
        let key = (to_repository.clone(), digest);
        for d in &refers.manifests {
            self.before.entry(key.clone()).or_default().push((to_repository.clone(), d.digest.clone()));
        }
        for d in &referrers {
            self.before.entry((to_repository.clone(), d.digest.clone())).or_default().push(key.clone());
        }
        self.blobs.extend(refers.blobs.into_iter().map(|d| Blob {
            repository: repository.clone(),
            to_repository: to_repository.clone(),
            digest: d.digest,
            size: d.size,
        }));
        self.nodes.insert(key, Node { repository, to_repository, manifest, height: 0 });
        Ok(())
    }

    fn into_closure(mut self, roots: &[Root]) -> Result<Closure, Error> {
        // each round lifts at least one node to its final height; hashes have no cycles, referrers at most as many as we read levels
        for _ in 0..=2 * DEPTH_MAX {
            let mut lifted = false;
            for (key, before) in &self.before {
                let under = before.iter().filter_map(|k| self.nodes.get(k)).map(|n| n.height + 1).max().unwrap_or(0);
                if let Some(node) = self.nodes.get_mut(key).filter(|n| n.height < under) {
                    node.height = under;
                    lifted = true;
                }
            }
            if !lifted {
                break;
            }
        }
        let mut manifests: Vec<_> = self.nodes.into_values().collect();
        manifests.sort_by_key(|n| n.height);
        let blobs: Vec<_> = self.blobs.into_iter().collect();
        let objects: BTreeSet<(&Digest, u64)> = manifests
            .iter()
            .map(|n| (&n.manifest.digest, n.manifest.body.len() as u64))
            .chain(blobs.iter().map(|b| (&b.digest, b.size)))
            .collect();
        let digest = closure_digest(objects.iter().copied());
        // The sizes are the source's word, and may be any.
        let bytes = objects.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        let objects = objects.len() as u64;
        Ok(Closure { roots: roots.to_vec(), manifests, blobs, digest, objects, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_digest_sees_every_difference_but_order() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let one = closure_digest([(&a, 1), (&b, 2)]);
        assert_eq!(one, closure_digest([(&b, 2), (&a, 1), (&a, 1)]));
        assert_ne!(one, closure_digest([(&a, 1)]));
        assert_ne!(one, closure_digest([(&a, 1), (&b, 3)]));
        let mut lines = [format!("{a} 1\n"), format!("{b} 2\n")];
        lines.sort();
        assert_eq!(one, Digest::of(lines.concat().as_bytes()), "the form is fixed: approvals outlive programs");
    }
}
