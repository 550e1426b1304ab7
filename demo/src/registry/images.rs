//! Images small enough to make in code, and real: a tar layer, a configuration, a manifest, an index, all by digest.
//!
//! Source: OCI image specification 1.1 (layer, config, manifest, index).

use atoll_registry::{
    Digest,
    backend::{RawManifest, memory::Store},
    manifest::{OCI_INDEX, OCI_MANIFEST},
};
use bytes::Bytes;
use serde_json::{Value, json};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A tar's unit.
const BLOCK: usize = 512;

/// Puts the image `repository:tag` into `store` and returns its index's digest. The same words make the same digest.
pub fn seed(store: &Store, repository: &str, tag: &str) -> Digest {
    // the base is the same in every image, as it is in life: it is what mounts and skips are for
    let base = tar(&[("etc/os-release", "NAME=\"Atoll demo\"\nID=atoll-demo\n")]);
    let own = tar(&[("srv/version", tag), ("srv/name", repository)]);
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/srv/echo"], "Labels": {"org.opencontainers.image.version": tag}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&base), Digest::of(&own)]},
    });
    let blob = |media_type: &str, body: Bytes| -> Value {
        let size = body.len();
        json!({"mediaType": media_type, "digest": store.put_blob(repository, body), "size": size})
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": blob(CONFIG, config.to_string().into()),
        "layers": [blob(LAYER, base), blob(LAYER, own)],
    });
    let (digest, size) = put(store, repository, None, OCI_MANIFEST, &manifest);
    let platform = json!({"architecture": "amd64", "os": "linux"});
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": platform}],
    });
    put(store, repository, Some(tag), OCI_INDEX, &index).0
}

fn put(store: &Store, repository: &str, tag: Option<&str>, media_type: &str, value: &Value) -> (Digest, usize) {
    let body = Bytes::from(value.to_string());
    let (digest, size) = (Digest::of(&body), body.len());
    let manifest = RawManifest { media_type: media_type.to_owned(), digest: digest.clone(), body };
    store.put_manifest(repository, tag, manifest).expect("everything that it refers to was just put there");
    (digest, size)
}

/// A tar of small text files (POSIX ustar), owned by root, at time 0.
fn tar(files: &[(&str, &str)]) -> Bytes {
    let mut out = Vec::new();
    for (name, text) in files {
        let mut head = [0u8; BLOCK];
        let mut field = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(0, name);
        field(100, "0000644\0");
        field(108, "0000000\0");
        field(116, "0000000\0");
        field(124, &format!("{:011o}\0", text.len()));
        field(136, "00000000000\0");
        field(148, "        ");
        field(156, "0");
        field(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(text.as_bytes());
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // "the end is marked by two blocks of zeros"
    out.resize(out.len() + 2 * BLOCK, 0);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_wherever_it_is_made_and_differs_by_tag() {
        let (a, b) = (Store::default(), Store::default());
        assert_eq!(seed(&a, "shop/web", "1"), seed(&b, "shop/web", "1"));
        assert_ne!(seed(&a, "shop/web", "1"), seed(&a, "shop/web", "2"));
        assert_eq!(a.tags("shop/web").expect("tags"), ["1", "2"]);
    }

    #[test]
    fn a_layer_is_a_tar_that_tar_reads() {
        let bytes = tar(&[("srv/version", "1"), ("etc/os-release", "ID=x\n")]);
        let mut archive = tar::Archive::new(&bytes[..]);
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["srv/version", "etc/os-release"]);
    }
}
