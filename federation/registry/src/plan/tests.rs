//! The plan, by cases and by its own property: what was carried out needs no plan.

use bytes::Bytes;

use super::*;
use crate::{backend::RawManifest, manifest::OCI_MANIFEST};

fn blob(to: &str, name: &str, size: u64) -> Blob {
    Blob { repository: "src".into(), to_repository: to.into(), digest: Digest::of(name.as_bytes()), size }
}

fn node(to: &str, name: &str, height: usize) -> Node {
    let body = Bytes::copy_from_slice(name.as_bytes());
    let manifest = RawManifest { media_type: OCI_MANIFEST.into(), digest: Digest::of(&body), body };
    Node { repository: "src".into(), to_repository: to.into(), manifest, height }
}

fn root(to: &str, tag: Option<&str>, name: &str) -> Root {
    let digest = Digest::of(name.as_bytes());
    Root { repository: "src".into(), to_repository: to.into(), tag: tag.map(str::to_owned), digest }
}

/// One index over two images in `a`, and one of the images again in `b`.
fn closure() -> Closure {
    let manifests = vec![node("a", "image1", 0), node("a", "image2", 0), node("b", "image1", 0), node("a", "index", 1)];
    let blobs = vec![blob("a", "small", 1), blob("a", "large", 100), blob("b", "small", 1)];
    let roots = vec![root("a", Some("1"), "index"), root("b", None, "image1")];
    let digest = Digest::of(b"closure");
    Closure { roots, manifests, blobs, digest, objects: 5, bytes: 0 }
}

/// What the destination has once a plan was carried out.
fn carried_out(mut present: Present, plan: &Plan) -> Present {
    let blobs = plan.copies.iter().chain(plan.mounts.iter().map(|m| &m.blob));
    present.blobs.extend(blobs.map(|b| (b.to_repository.clone(), b.digest.clone())));
    present
        .manifests
        .extend(plan.manifests.iter().flatten().map(|n| (n.to_repository.clone(), n.manifest.digest.clone())));
    let tags = plan.tags.iter().filter_map(|r| Some(((r.to_repository.clone(), r.tag.clone()?), r.digest.clone())));
    present.tags.extend(tags);
    present
}

#[test]
fn an_empty_destination_gets_each_blob_once_and_manifests_children_first() {
    let plan = plan(&closure(), &Present::default());
    assert_eq!(plan.copies, [blob("a", "large", 100), blob("a", "small", 1)]);
    assert_eq!(plan.mounts, [Mount { blob: blob("b", "small", 1), from: "a".into() }]);
    let heights: Vec<Vec<_>> = plan.manifests.iter().map(|l| l.iter().map(|n| n.height).collect()).collect();
    assert_eq!(heights, [vec![0, 0, 0], vec![1]]);
    assert_eq!(plan.tags, [root("a", Some("1"), "index")]);
    assert_eq!((plan.bytes, plan.skipped), (101 + 6 * 3 + 5, 0));
}

#[test]
fn what_is_there_is_not_sent_again_and_what_a_neighbour_has_is_mounted() {
    let mut present = Present::default();
    present.blobs.insert(("b".into(), Digest::of(b"small")));
    present.blobs.insert(("a".into(), Digest::of(b"large")));
    present.manifests.insert(("a".into(), Digest::of(b"image2")));
    let plan = plan(&closure(), &present);
    assert_eq!(plan.copies, []);
    assert_eq!(plan.mounts, [Mount { blob: blob("a", "small", 1), from: "b".into() }]);
    assert_eq!(plan.skipped, 3);
}

#[test]
fn sizes_that_no_registry_can_have_do_not_overflow() {
    let blobs = vec![blob("a", "one", u64::MAX), blob("a", "two", u64::MAX)];
    let plan = plan(&Closure { blobs, ..closure() }, &Present::default());
    assert_eq!((plan.copies.len(), plan.bytes), (2, u64::MAX));
}

#[test]
fn a_tag_with_another_digest_is_written_and_one_with_the_same_is_not() {
    for (there, want) in [("index", 0), ("other", 1)] {
        let mut present = Present::default();
        present.tags.insert(("a".into(), "1".into()), Digest::of(there.as_bytes()));
        assert_eq!(plan(&closure(), &present).tags.len(), want, "{there}");
    }
}

#[test]
fn what_was_carried_out_needs_no_plan() {
    let first = plan(&closure(), &Present::default());
    let again = plan(&closure(), &carried_out(Present::default(), &first));
    assert!(again.is_empty(), "{again:?}");
    assert_eq!((again.bytes, again.skipped), (0, 7));
}
