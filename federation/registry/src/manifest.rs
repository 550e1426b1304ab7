//! What a manifest or an index refers to.
//!
//! Input: the bytes of a manifest. Output: descriptors, in the order of the manifest. Never: a request, and never a changed byte.
//! Source: OCI image specification 1.1 (manifest, index), Docker image manifest V2 schema 2.

use serde::Deserialize;

use crate::name::Digest;

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// All four, as an `Accept` header wants them.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Largest manifest: the specification has registries take 4 MiB.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Names content: type, digest, size.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type; empty where a registry did not say.
    #[serde(default)]
    pub media_type: String,
    /// The digest.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// Where else the content is; set on layers that must not be distributed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

impl Descriptor {
    /// Whether this names an index or a manifest rather than a blob.
    pub fn is_manifest(&self) -> bool {
        [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&self.media_type.as_str())
    }

    /// Whether this is a layer that its licence keeps out of other registries; pullers take it from its `urls`.
    fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".rootfs.foreign.")
    }
}

/// What a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct References {
    /// Children of an index.
    pub manifests: Vec<Descriptor>,
    /// Configuration and layers of a manifest.
    pub blobs: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Reads what `body`, served as `media_type`, refers to.
///
/// # Errors
/// Why it can't be read, in words; a retry never helps.
pub fn references(media_type: &str, body: &[u8]) -> Result<References, String> {
    let doc: Document =
        serde_json::from_slice(body).map_err(|e| format!("manifest is no JSON of the right shape: {e}"))?;
    if doc.schema_version != 2 {
        return Err(format!("manifest has schemaVersion {}, want 2", doc.schema_version));
    }
    // "clients SHOULD verify mediaType matches the Content-Type": a body that is read as two things is a known attack
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !doc.media_type.is_empty() && doc.media_type != media_type {
        return Err(format!("manifest says it is `{}` but was served as `{media_type}`", doc.media_type));
    }
    let index = match media_type {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        other => return Err(format!("media type `{other}`")),
    };
    if index && (doc.config.is_some() || !doc.layers.is_empty()) || !index && !doc.manifests.is_empty() {
        return Err("manifest is an index and an image at once".to_owned());
    }
    if !index && doc.config.is_none() {
        return Err("manifest has no config".to_owned());
    }
    let (manifests, others): (Vec<_>, Vec<_>) = doc.manifests.into_iter().partition(Descriptor::is_manifest);
    let blobs =
        others.into_iter().chain(doc.config).chain(doc.layers).filter(|d: &Descriptor| !d.is_foreign()).collect();
    Ok(References { manifests, blobs })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn an_image_refers_to_config_and_layers_and_an_index_to_manifests() {
        let layer = format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{D}","size":3}}"#);
        let foreign = layer.replace("layer.v1", "layer.nondistributable.v1");
        let image = format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{layer},{foreign}]}}"#);
        let got = references(OCI_MANIFEST, image.as_bytes()).expect("image");
        assert_eq!((got.manifests.len(), got.blobs.len()), (0, 2));

        let child = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{D}","size":3}}"#);
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{child},{child}]}}"#);
        let got = references(OCI_INDEX, index.as_bytes()).expect("index");
        assert_eq!((got.manifests.len(), got.blobs.len()), (2, 0));
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_reason() {
        let d = format!(r#"{{"digest":"{D}","size":3}}"#);
        let cases = [
            (OCI_MANIFEST, "<html>".to_owned(), "no JSON"),
            (OCI_MANIFEST, r#"{"schemaVersion":1}"#.to_owned(), "schemaVersion 1"),
            (OCI_MANIFEST, r#"{"schemaVersion":2}"#.to_owned(), "no config"),
            ("text/html", r#"{"schemaVersion":2}"#.to_owned(), "`text/html`"),
            (OCI_MANIFEST, format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}"}}"#), "served as"),
            (OCI_MANIFEST, format!(r#"{{"schemaVersion":2,"config":{d},"manifests":[{d}]}}"#), "at once"),
            (OCI_MANIFEST, r#"{"schemaVersion":2,"config":{"digest":"sha256:1","size":3}}"#.to_owned(), "no digest"),
        ];
        for (media_type, body, want) in cases {
            let got = references(media_type, body.as_bytes()).expect_err(&body);
            assert!(got.contains(want), "{body}: {got}");
        }
    }
}
