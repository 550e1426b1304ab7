//! Debian packages that the testbed's machine needs, by name, and their installation where they lack.

use std::path::Path;

use tokio::process::Command;

use crate::error::{Error, Result};
use crate::shell::finish;

/// A program that we call and the package that brings it.
pub const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/etcd", "etcd-server"),
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/bin/docker-registry", "docker-registry"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/dig", "bind9-dnsutils"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/mount", "mount"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// The packages whose programs are not there.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    PACKAGES.iter().filter(|(program, _)| !Path::new(program).exists()).map(|(_, package)| *package).collect()
}

/// Installs what lacks of these programs, for those who need a few of them and no testbed.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_some(programs: &[&str]) -> Result<()> {
    let lacks = |program: &str| programs.contains(&program) && !Path::new(program).exists();
    let missing: Vec<&str> = PACKAGES.iter().filter(|(p, _)| lacks(p)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing).await }
}

/// Installs what lacks.
///
/// # Errors
/// Not root, no apt, or apt fails: the message names the packages.
pub async fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing).await
}

/// Installs packages by name, without starting the services that they bring.
///
/// # Errors
/// As [`ensure`].
pub async fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Refused(format!("these Debian packages lack: {names}; install them, or run this as root")));
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(Error::Refused(format!("there is no apt-get here; install by hand what Debian calls {names}")));
    }
    tracing::info!("apt-get install {names}");
    // A package's service would take ports and memory: the policy file says no while we install, if there is none yet.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        crate::home::write(policy, "#!/bin/sh\nexit 101\n")?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(policy, executable).map_err(Error::on(policy))?;
    }
    let mut result = apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()).await;
    if result.is_err() {
        result = match apt(&["update"]).await {
            Ok(()) => apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()).await,
            Err(error) => Err(error),
        };
    }
    if ours {
        std::fs::remove_file(policy).map_err(Error::on(policy))?;
    }
    result
}

async fn apt(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.arg("-q").args(words).env("DEBIAN_FRONTEND", "noninteractive").kill_on_drop(true);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .stdin(std::process::Stdio::null());
    finish(command, &format!("apt-get {}", words.join(" ")), "").await.map(drop)
}
