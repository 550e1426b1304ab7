//! The images of a testbed: pause and CoreDNS as archives in the cache, the echo backends ready to be pushed.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::home::write;
use crate::image::Image;
use crate::manifests::COREDNS_IMAGE;
use crate::node::PAUSE_IMAGE;
use crate::programs::Programs;

/// What every member gets.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    /// Archives that each containerd imports.
    pub(crate) archives: Vec<PathBuf>,
    /// `shop/web:1`, for every registry.
    pub(crate) web_1: Image,
    /// `shop/web:2`, for dev's alone.
    pub(crate) web_2: Image,
}

/// Makes what is not in the cache yet.
pub(crate) fn make(programs: &Programs) -> Result<Images> {
    let mut archives = Vec::new();
    for (program, name) in [("pause", PAUSE_IMAGE), ("coredns", COREDNS_IMAGE)] {
        let file = programs.path(program);
        // The program's own file is named by its pins, and so is the archive beside it.
        let file = std::fs::canonicalize(&file).map_err(Error::on(&file))?;
        let archive = file.with_extension("image.tar");
        if !archive.exists() {
            let image = Image::of_program(&file, program, &[])?;
            let new = file.with_extension(format!("{}.image.new", std::process::id()));
            write(&new, image.docker_archive(&format!("docker.io/{name}")))?;
            std::fs::rename(&new, &archive).map_err(Error::on(&archive))?;
        }
        archives.push(archive);
    }
    let echo = programs.path("echo");
    Ok(Images {
        archives,
        web_1: Image::of_program(&echo, "echo", &["VERSION=1"])?,
        web_2: Image::of_program(&echo, "echo", &["VERSION=2"])?,
    })
}
