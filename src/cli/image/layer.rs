//! A container image of one layer, written as a docker-archive: what `ctr images import`, `docker load` and `skopeo` read.
//!
//! In: files and where they go, entrypoint, environment. Out: one tar. The same files give the same digests. Source: the Docker
//! image specification v1.2 ("Combined Image JSON + Filesystem Changeset Format").

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// What an image is made of.
pub(crate) struct Contents<'a> {
    /// The full name: `docker.io/library/atoll:0.1.0`.
    pub(crate) name: &'a str,
    /// Absolute path in the image, the file here, its mode.
    pub(crate) files: Vec<(PathBuf, PathBuf, u32)>,
    /// Absolute path in the image and text.
    pub(crate) texts: Vec<(PathBuf, &'a str)>,
    /// The program that is started.
    pub(crate) entrypoint: &'a str,
    /// `NAME=value`.
    pub(crate) environment: Vec<String>,
    /// `uid:gid`.
    pub(crate) user: &'a str,
}

/// Counts and digests what is written.
struct Digesting<W> {
    inner: W,
    digest: Sha256,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the archive to `to`, whole or not at all. Returns the digest of the image's config, which is its id.
pub(crate) fn write(contents: &Contents<'_>, to: &Path) -> io::Result<String> {
    let directory = to.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut layer = tempfile::tempfile_in(directory)?;
    let layer_digest = write_layer(contents, &layer)?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {
            "Entrypoint": [contents.entrypoint], "Env": contents.environment, "User": contents.user, "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created_by": "atoll image export"}],
    })
    .to_string();
    let digest = hex_digest(&Sha256::digest(&config));
    let config_name = format!("{digest}.json");
    let manifest = json!([{"Config": config_name, "RepoTags": [contents.name], "Layers": ["layer.tar"]}]).to_string();
    let mut fresh = tempfile::NamedTempFile::new_in(directory)?;
    let mut archive = tar::Builder::new(io::BufWriter::new(fresh.as_file_mut()));
    append(&mut archive, Path::new("manifest.json"), 0o644, manifest.len() as u64, manifest.as_bytes())?;
    append(&mut archive, Path::new(&config_name), 0o644, config.len() as u64, config.as_bytes())?;
    let length = layer.metadata()?.len();
    layer.rewind()?;
    append(&mut archive, Path::new("layer.tar"), 0o644, length, &mut layer)?;
    archive.into_inner()?.flush()?;
    readable(fresh.as_file())?;
    fresh.persist(to).map_err(|e| e.error)?;
    Ok(format!("sha256:{digest}"))
}

/// A temporary file is for its owner alone; an image is for whoever imports it.
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

fn write_layer(contents: &Contents<'_>, layer: &File) -> io::Result<String> {
    let out = Digesting { inner: io::BufWriter::new(layer), digest: Sha256::new() };
    let mut archive = tar::Builder::new(out);
    let mut made = std::collections::BTreeSet::new();
    for (path, file, mode) in &contents.files {
        directories(&mut archive, path, &mut made)?;
        let file = File::open(file)?;
        append(&mut archive, relative(path), *mode, file.metadata()?.len(), file)?;
    }
    for (path, text) in &contents.texts {
        directories(&mut archive, path, &mut made)?;
        append(&mut archive, relative(path), 0o644, text.len() as u64, text.as_bytes())?;
    }
    let mut out = archive.into_inner()?;
    out.flush()?;
    Ok(format!("sha256:{}", hex_digest(&out.digest.finalize())))
}

/// Makes the directories above `path` that are not there yet.
fn directories<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    made: &mut std::collections::BTreeSet<PathBuf>,
) -> io::Result<()> {
    let above: Vec<&Path> = relative(path).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    for directory in above.into_iter().rev() {
        if made.insert(directory.to_owned()) {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(0o755);
            header.set_mtime(0);
            archive.append_data(&mut header, directory, io::empty())?;
        }
    }
    Ok(())
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    mode: u32,
    length: u64,
    bytes: impl io::Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(mode);
    header.set_mtime(0);
    archive.append_data(&mut header, path, bytes)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn hex_digest(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As container images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
