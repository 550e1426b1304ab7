//! Container images of one layer and a few files, made without any tool: as a docker-archive for `ctr images import`,
//! as blobs and a manifest for a registry. The same input gives the same digests.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A blob and its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// `sha256:…`.
    pub digest: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An image with everything that it refers to.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its only layer, an uncompressed tar.
    pub layer: Blob,
    /// Its config.
    pub config: Blob,
    /// Its OCI manifest; the digest is the image's.
    pub manifest: Blob,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Blob {
    fn of(bytes: Vec<u8>) -> Self {
        Self { digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))), bytes }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

impl Image {
    /// An image of one static program that is its entrypoint.
    ///
    /// # Errors
    /// The program can't be read.
    pub fn of_program(program: &Path, name: &str, variables: &[&str]) -> Result<Self> {
        let bytes = std::fs::read(program).map_err(Error::on(program))?;
        Ok(Self::of_files(&[(name, &bytes)], &format!("/{name}"), variables))
    }

    /// An image of these executable files.
    #[must_use]
    pub fn of_files(files: &[(&str, &[u8])], entrypoint: &str, variables: &[&str]) -> Self {
        let layer = Blob::of(archive(files, 0o755));
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": [entrypoint], "Env": variables, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            "history": [{"created_by": "atoll-testbed"}],
        });
        let config = Blob::of(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
        });
        Self { manifest: Blob::of(manifest.to_string().into_bytes()), layer, config }
    }

    /// The media type of its manifest.
    #[must_use]
    pub const fn media_type() -> &'static str {
        MANIFEST
    }

    /// The image as a docker-archive under a full name (`docker.io/library/pause:1`).
    #[must_use]
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        let config = format!("{}.json", &self.config.digest["sha256:".len()..]);
        let manifest = json!([{"Config": config, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
        archive(
            &[("manifest.json", manifest.as_bytes()), (&config, &self.config.bytes), ("layer.tar", &self.layer.bytes)],
            0o644,
        )
    }
}

fn archive(files: &[(&str, &[u8])], mode: u32) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        archive.append_data(&mut header, name, *bytes).expect("a vector takes all of it");
    }
    archive.into_inner().expect("a vector takes all of it")
}
