//! Takes a testbed away, whatever state it is in: processes, namespaces, cables, bridge, routes, mounts, control groups,
//! folder, in this order. What is already gone is no failure, so it can be run again after any crash, its own included.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::home::Home;
use crate::net;
use crate::plan::Block;
use crate::process::{self, processes};
use crate::shell::run;

/// Takes everything of that checkout's testbed away.
///
/// # Errors
/// Something would not go; the message names it, and another `down` tries again.
pub(crate) async fn down(home: &Home) -> Result<()> {
    process::end(home, |_| true).await?;
    // A state that can't be read still leaves the block in the names of what is there; without either nothing was made.
    if let Ok(Some(state)) = home.state() {
        net::clear(state.block).await?;
    }
    unmount(&home.dir).await?;
    clear_cgroups(&containers(&home.dir));
    match fs::remove_dir_all(&home.dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::on(&home.dir)(error)),
        _ => Ok(()),
    }
}

/// What of a testbed is there, one line each: empty after `down`.
///
/// # Errors
/// The machine can't be looked at.
pub(crate) async fn leftovers(home: &Home, block: Block) -> Result<Vec<String>> {
    let mut left: Vec<String> = processes(home).iter().map(|found| format!("process {found:?}")).collect();
    left.extend(net::namespaces(block).await?.into_iter().map(|name| format!("namespace {name}")));
    left.extend(net::links(block).await?.into_iter().map(|name| format!("interface {name}")));
    left.extend(mounts(&home.dir)?.into_iter().map(|path| format!("mount {}", path.display())));
    let start = format!("10.{}.", block.0);
    let routes = run(&["ip", "-4", "route", "show"]).await?;
    left.extend(routes.lines().filter(|line| line.contains(&start)).map(|line| format!("route {line}")));
    if home.dir.exists() {
        left.push(format!("folder {}", home.dir.display()));
    }
    Ok(left)
}

/// Mount points below a folder in our own mount namespace, the deepest first.
fn mounts(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mounts").map_err(Error::io("/proc/self/mounts"))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = points.filter(|path| path.starts_with(dir)).collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(found)
}

async fn unmount(dir: &Path) -> Result<()> {
    for point in mounts(dir)? {
        run(&["umount", "--lazy", &point.display().to_string()]).await?;
    }
    Ok(())
}

/// The ids of the containers and sandboxes that all members' containerds knew.
fn containers(dir: &Path) -> BTreeSet<String> {
    names(dir).into_iter().flat_map(|member| containers_of(&dir.join(member))).collect()
}

/// The ids of the containers and sandboxes that one member's containerd knew.
pub(crate) fn containers_of(member: &Path) -> BTreeSet<String> {
    let state = member.join("containerd/state");
    let folders = ["runtime.v2.task/k8s.io", "grpc.v1.cri/sandboxes", "grpc.v1.cri/containers"];
    let found = folders.iter().flat_map(|folder| names(&state.join(format!("io.containerd.{folder}"))));
    found.filter(|id| id.len() == 64).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes the control groups of containers whose processes are gone.
pub(crate) fn clear_cgroups(ids: &BTreeSet<String>) {
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    let mut ours = Vec::new();
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if ids.contains(entry.file_name().to_string_lossy().as_ref()) {
                ours.push(entry.path());
            } else if depth < 4 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    // The parent that runc makes for all of them; it stays while another testbed's are in it.
    let controllers = names(Path::new("/sys/fs/cgroup")).into_iter();
    ours.extend(controllers.map(|name| Path::new("/sys/fs/cgroup").join(name).join("k8s.io")));
    for group in ours {
        // A group that still has a process is not ours to remove; none has after `end`.
        let _ = fs::remove_dir(&group);
    }
}
