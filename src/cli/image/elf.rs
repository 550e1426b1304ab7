//! What an ELF program needs to start: its loader and the shared libraries that it and they name.
//!
//! In: the bytes of a program or library. Out: the names in its dynamic section; where they lie on this machine. Source: the ELF
//! specification (gABI 4.1, chapter 5); ld.so(8) for the order in which directories are searched.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// No program needs more.
const LIBRARIES_MAX: usize = 200;

/// Why a file can't be read as a program.
#[derive(Debug)]
pub(crate) enum BadProgram {
    /// Not ELF, or not for 64 bits, little end first.
    Foreign(PathBuf),
    /// It ends too early.
    Damaged(PathBuf),
    /// A library is not there: who needs it, its name, where it was looked for.
    Missing(PathBuf, String, Vec<PathBuf>),
    /// More than it can need: something is wrong.
    Endless(PathBuf),
    /// A file can't be read.
    Io(PathBuf, std::io::Error),
}

impl fmt::Display for BadProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(path) => write!(f, "{}: not a 64-bit little-endian ELF file", path.display()),
            Self::Damaged(path) => write!(f, "{}: its ELF structure is damaged", path.display()),
            Self::Missing(path, name, searched) => {
                let searched: Vec<String> = searched.iter().map(|d| d.display().to_string()).collect();
                write!(f, "{}: needs {name}, which is in none of {}", path.display(), searched.join(", "))
            }
            Self::Endless(path) => write!(f, "{}: needs more than {LIBRARIES_MAX} libraries", path.display()),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

/// What a file asks of the dynamic loader.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// The loader, an absolute path.
    pub(crate) interpreter: Option<PathBuf>,
    /// Names of libraries.
    pub(crate) needed: Vec<String>,
    /// Directories of its own.
    pub(crate) run_path: Vec<String>,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&self, at: u64, len: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.0.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn text(&self, at: u64) -> Option<String> {
        let rest = self.0.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        String::from_utf8(rest[..end].to_vec()).ok()
    }
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads what `bytes` asks for; nothing where it is linked statically. `None`: damaged.
fn parse(bytes: &[u8]) -> Option<Dynamic> {
    let file = Bytes(bytes);
    let (table, size, count) = (file.number(32, 8)?, file.number(54, 2)?, file.number(56, 2)?);
    let mut segments = Vec::new();
    for i in 0..count {
        let at = table.checked_add(i * size)?;
        segments.push(Segment {
            kind: u32::try_from(file.number(at, 4)?).ok()?,
            offset: file.number(at + 8, 8)?,
            address: file.number(at + 16, 8)?,
            size: file.number(at + 32, 8)?,
        });
    }
    let of_kind = |kind: u32| segments.iter().find(move |s| s.kind == kind);
    let mut found = Dynamic::default();
    if let Some(segment) = of_kind(PT_INTERP) {
        found.interpreter = Some(PathBuf::from(file.text(segment.offset)?));
    }
    let Some(dynamic) = of_kind(PT_DYNAMIC) else { return Some(found) };
    let mut entries = Vec::new();
    for at in (0..dynamic.size / 16).map(|i| dynamic.offset + i * 16) {
        match (file.number(at, 8)?, file.number(at + 8, 8)?) {
            (0, _) => break,
            entry => entries.push(entry),
        }
    }
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    let loaded = |s: &&Segment| s.kind == PT_LOAD && strings >= s.address && strings - s.address < s.size;
    let segment = segments.iter().find(loaded)?;
    let strings = segment.offset + (strings - segment.address);
    for (tag, value) in entries {
        let text = || file.text(strings.checked_add(value)?);
        match tag {
            DT_NEEDED => found.needed.push(text()?),
            DT_RPATH | DT_RUNPATH => found.run_path.extend(text()?.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    Some(found)
}

/// Reads what the file asks for.
pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Dynamic, BadProgram> {
    // \x7fELF, 64 bits, little end first.
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(BadProgram::Foreign(path.to_owned()));
    }
    parse(bytes).ok_or_else(|| BadProgram::Damaged(path.to_owned()))
}

/// The files that `program` needs beside itself: the path where each must be found → the file that is it. `loaded`: directories of
/// libraries that this process has loaded.
pub(crate) fn closure(program: &Path, loaded: &[PathBuf]) -> Result<BTreeMap<PathBuf, PathBuf>, BadProgram> {
    let mut files = BTreeMap::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut queue = VecDeque::from([program.to_owned()]);
    while let Some(path) = queue.pop_front() {
        if files.len() > LIBRARIES_MAX {
            return Err(BadProgram::Endless(program.to_owned()));
        }
        let bytes = std::fs::read(&path).map_err(|e| BadProgram::Io(path.clone(), e))?;
        let dynamic = read(&path, &bytes)?;
        if let Some(loader) = dynamic.interpreter {
            known.extend(loader.file_name().map(|n| n.to_string_lossy().into_owned()));
            files.insert(loader.clone(), loader);
        }
        let directories = directories(&path, &dynamic.run_path, loaded);
        for name in dynamic.needed {
            if !known.insert(name.clone()) {
                continue;
            }
            let found = directories.iter().map(|d| d.join(&name)).find(|file| file.is_file());
            let found = found.ok_or_else(|| BadProgram::Missing(path.clone(), name, directories.clone()))?;
            queue.push_back(found.clone());
            files.insert(found.clone(), found);
        }
    }
    Ok(files)
}

/// Where the loader looks: the file's own directories, then those of what is loaded here, then the system's.
fn directories(file: &Path, run_path: &[String], loaded: &[PathBuf]) -> Vec<PathBuf> {
    let origin = file.parent().unwrap_or(Path::new("/")).display().to_string();
    let own = run_path.iter().map(|d| PathBuf::from(d.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin)));
    let arch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let system = [format!("/lib/{arch}"), format!("/usr/lib/{arch}"), "/lib64".into(), "/usr/lib64".into()];
    let system = system.into_iter().chain(["/lib".into(), "/usr/lib".into()]).map(PathBuf::from);
    own.chain(loaded.iter().cloned()).chain(system).collect()
}

/// Directories of the libraries that a process has mapped, out of its `/proc/…/maps`.
pub(crate) fn loaded_from(maps: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..]))) {
        let is_library = path.file_name().is_some_and(|n| n.to_string_lossy().contains(".so"));
        if let Some(directory) = path.parent().filter(|d| is_library && !found.iter().any(|f| f == d)) {
            found.push(directory.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_names_its_loader_and_libraries() {
        let own = std::env::current_exe().unwrap();
        let dynamic = read(&own, &std::fs::read(&own).unwrap()).unwrap();
        assert!(dynamic.interpreter.is_some_and(|loader| loader.is_absolute()));
        assert!(dynamic.needed.iter().any(|name| name.starts_with("libc.so")), "{:?}", dynamic.needed);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let files = closure(&own, &loaded_from(&maps)).unwrap();
        assert!(files.keys().any(|path| path.ends_with("libc.so.6")), "{files:?}");
        assert!(files.values().all(|file| file.is_file()));
    }

    #[test]
    fn what_is_no_program_is_refused_and_never_panics() {
        let path = Path::new("x");
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(read(path, b"#!/bin/sh"), Err(BadProgram::Foreign(_))));
        assert!(matches!(read(path, b""), Err(BadProgram::Foreign(_))));
        assert!(matches!(read(path, &own[..64]), Err(BadProgram::Damaged(_))));
        let mut wild = own[..4096].to_vec();
        for byte in &mut wild[32..] {
            *byte ^= 0xff;
        }
        let _ = read(path, &wild);
    }

    #[test]
    fn directories_are_read_out_of_the_map() {
        let maps = "7f00-7f01 r-xp 0 08:01 1   /usr/lib/x86_64-linux-gnu/libc.so.6\n7f02-7f03 r--p 0 0 0 [heap]\n\
            7f04-7f05 r-xp 0 08:01 2   /opt/x/liby.so.1\n7f06-7f07 r-xp 0 08:01 3   /usr/bin/atoll\n";
        assert_eq!(loaded_from(maps), [PathBuf::from("/usr/lib/x86_64-linux-gnu"), PathBuf::from("/opt/x")]);
    }
}
