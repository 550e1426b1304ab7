//! The programs that no package holds: built once from pinned Go modules into a cache outside the repository.
//! A cached file is named by the hash of everything that decides it (module, sums, sources, flags, Go's version), so a
//! changed pin is another file; it is used only if it is still as it was built.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::home::checkout;
use crate::shell::{finish, run};

/// A program and how it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The file's name in the cache.
    pub name: &'static str,
    /// The folder under `testbed/go` with go.mod and go.sum.
    pub module: &'static str,
    /// The package to build.
    pub package: &'static str,
    /// Words for the linker.
    pub ldflags: &'static str,
    /// The names by which it is called, if it goes by several.
    pub links: &'static [&'static str],
    /// Whether it is the package's tests, as one program.
    pub tests: bool,
    /// Whether it is compiled without optimising, which takes two thirds of the time: for what is neither measured nor does much.
    pub plain: bool,
}

/// Every program, the longest build first.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "kubernetes",
        module: "kubernetes",
        package: ".",
        // Without these clients see v0.0.0.
        ldflags: "-X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34",
        links: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"],
        tests: false,
        plain: false,
    },
    Program {
        name: "consul",
        module: "consul",
        package: "github.com/hashicorp/consul",
        ldflags: "",
        links: &[],
        tests: false,
        plain: true,
    },
    Program {
        name: "coredns",
        module: "coredns",
        package: "github.com/coredns/coredns",
        ldflags: "",
        links: &[],
        tests: false,
        plain: false,
    },
    Program {
        name: "helm",
        module: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        ldflags: "",
        links: &[],
        tests: false,
        plain: true,
    },
    Program {
        name: "registry",
        module: "registry",
        package: "github.com/distribution/distribution/v3/cmd/registry",
        ldflags: "",
        links: &[],
        tests: false,
        plain: false,
    },
    Program { name: "echo", module: "echo", package: ".", ldflags: "", links: &[], tests: false, plain: false },
    Program { name: "pause", module: "echo", package: "./pause", ldflags: "", links: &[], tests: false, plain: false },
];

/// What the Gateway API's conformance suite needs beside them.
pub const CONFORMANCE: &[Program] = &[
    Program {
        name: "conformance",
        module: "conformance",
        package: ".",
        ldflags: "",
        links: &[],
        tests: true,
        plain: true,
    },
    Program {
        name: "echo-basic",
        module: "conformance",
        package: "sigs.k8s.io/gateway-api/conformance/echo-basic",
        ldflags: "",
        links: &[],
        tests: false,
        plain: true,
    },
];

/// The one that writes records as its users' clusters do.
const EXTERNAL_DNS: Program = Program {
    name: "external-dns",
    module: "externaldns",
    package: "sigs.k8s.io/external-dns",
    ldflags: "",
    links: &[],
    tests: false,
    plain: true,
};

/// The one that says whether a server speaks HTTP/2 as RFC 7540 has it.
const H2SPEC: Program = Program {
    name: "h2spec",
    module: "h2spec",
    package: "github.com/summerwind/h2spec/cmd/h2spec",
    ldflags: "",
    links: &[],
    tests: false,
    plain: true,
};

/// The CA that the gateway orders certificates from.
const PEBBLE: Program = Program {
    name: "pebble",
    module: "pebble",
    package: "github.com/letsencrypt/pebble/v2/cmd/pebble",
    ldflags: "",
    links: &[],
    tests: false,
    plain: true,
};

/// Servers that filters of the gateway ask: a provider of logins, two that judge requests, one that changes them.
const PEERS: &[Program] = &[
    Program {
        name: "opa",
        module: "opa",
        package: "github.com/open-policy-agent/opa-envoy-plugin/cmd/opa-envoy-plugin",
        ldflags: "",
        links: &[],
        tests: false,
        plain: true,
    },
    Program {
        name: "oauth2-proxy",
        module: "oauth2proxy",
        package: "github.com/oauth2-proxy/oauth2-proxy/v7",
        ldflags: "",
        links: &[],
        tests: false,
        plain: true,
    },
    Program { name: "dex", module: "dex", package: ".", ldflags: "", links: &[], tests: false, plain: true },
    Program {
        name: "processor",
        module: "processor",
        package: ".",
        ldflags: "",
        links: &[],
        tests: false,
        plain: true,
    },
];

/// The oldest Go that builds all of it.
const GO_MINOR_MIN: u32 = 26;
/// The Go that a machine with an older one fetches, as a module with a checked sum.
const GO_TOOLCHAIN: &str = "golang.org/toolchain@v0.0.1-go1.26.1.linux-amd64";

/// The cache with every program in it.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
}

/// How one program came to be there.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its name.
    pub name: &'static str,
    /// Whether the cache had it.
    pub cached: bool,
    /// How long the look or the build took.
    pub took: Duration,
}

impl Programs {
    /// The path of a program or of one of its links.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Finds or builds every program and tells `each` as they come.
    ///
    /// # Errors
    /// No Go and no way to get one, no network, or a build fails.
    pub async fn ensure(mut each: impl FnMut(&Built)) -> Result<Self> {
        Self::of(PROGRAMS.iter(), &mut each).await
    }

    /// The same with what the Gateway API's conformance suite needs.
    ///
    /// # Errors
    /// As [`Programs::ensure`].
    pub async fn conformance(mut each: impl FnMut(&Built)) -> Result<Self> {
        Self::of(PROGRAMS.iter().chain(CONFORMANCE), &mut each).await
    }

    /// Finds or builds what single tests need beside them: each has a set of its own, by [`external_dns`], [`h2spec`], [`pebble`], [`peers`].
    ///
    /// # Errors
    /// As [`Programs::ensure`].
    pub async fn of_single_tests(mut each: impl FnMut(&Built)) -> Result<()> {
        for set in [PEERS, &[EXTERNAL_DNS], &[H2SPEC], &[PEBBLE]] {
            Self::of(set.iter(), &mut each).await?;
        }
        Ok(())
    }

    async fn of<'p>(programs: impl Iterator<Item = &'p Program>, each: &mut impl FnMut(&Built)) -> Result<Self> {
        let sources = checkout().join("testbed/go");
        let cache = cache_dir()?;
        let mut go = None;
        let mut digests = Sha256::new();
        let mut files = Vec::new();
        for program in programs {
            let started = Instant::now();
            let key = key(&sources, program)?;
            digests.update(&key);
            let file = cache.join("programs").join(format!("{}-{key}", program.name));
            let cached = intact(&file);
            if !cached {
                if go.is_none() {
                    go = Some(find_go().await?);
                }
                tracing::info!("build {} (once, then cached in {})", program.name, cache.display());
                build(go.as_deref().unwrap_or(Path::new("go")), &sources, program, &file).await?;
            }
            files.push((program, file));
            each(&Built { name: program.name, cached, took: started.elapsed() });
        }
        // One folder of links a set of pins: paths stay short and two checkouts with different pins don't meet.
        let dir = cache.join("set").join(&hex::encode(digests.finalize())[..12]);
        fs::create_dir_all(&dir).map_err(Error::on(&dir))?;
        for (program, file) in files {
            for name in program.links.iter().chain([&program.name]) {
                link(&file, &dir.join(name))?;
            }
        }
        Ok(Self { dir })
    }
}

/// kubectl alone, for those who need no testbed.
///
/// # Errors
/// As [`Programs::ensure`].
pub async fn kubectl() -> Result<PathBuf> {
    let holds = |program: &&Program| program.links.contains(&"kubectl");
    let one = PROGRAMS.iter().find(holds).expect("one of them is kubectl");
    Ok(Programs::of(std::iter::once(one), &mut |_| {}).await?.path("kubectl"))
}

/// ExternalDNS alone.
///
/// # Errors
/// As [`Programs::ensure`].
pub async fn external_dns() -> Result<PathBuf> {
    Ok(Programs::of(std::iter::once(&EXTERNAL_DNS), &mut |_| {}).await?.path(EXTERNAL_DNS.name))
}

/// h2spec alone.
///
/// # Errors
/// As [`Programs::ensure`].
pub async fn h2spec() -> Result<PathBuf> {
    Ok(Programs::of(std::iter::once(&H2SPEC), &mut |_| {}).await?.path(H2SPEC.name))
}

/// pebble alone.
///
/// # Errors
/// As [`Programs::ensure`].
pub async fn pebble() -> Result<PathBuf> {
    Ok(Programs::of(std::iter::once(&PEBBLE), &mut |_| {}).await?.path(PEBBLE.name))
}

/// The servers that filters of the gateway ask: dex, oauth2-proxy, OPA with its Envoy plugin, a processor of go-control-plane's types.
///
/// # Errors
/// As [`Programs::ensure`].
pub async fn peers() -> Result<Programs> {
    Programs::of(PEERS.iter(), &mut |_| {}).await
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("ATOLL_TESTBED_CACHE").or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("atoll/testbed")));
    base.or_else(|| set("HOME").map(|dir| dir.join(".cache/atoll/testbed"))).ok_or_else(|| {
        Error::Refused("neither ATOLL_TESTBED_CACHE nor XDG_CACHE_HOME nor HOME is set: where is the cache?".into())
    })
}

/// The hash of everything that decides what a program is.
fn key(sources: &Path, program: &Program) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n{:?}\n", program.package, program.ldflags, flags(program)));
    let module = sources.join(program.module);
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![module];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::on(&folder))? {
            let path = entry.map_err(Error::on(&folder))?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for file in files {
        hash.update(fs::read(&file).map_err(Error::on(&file))?);
    }
    Ok(hex::encode(hash.finalize())[..16].to_owned())
}

/// What every compilation of a program's packages is told.
fn flags(program: &Program) -> Vec<&'static str> {
    let always = ["-trimpath", "-buildvcs=false"];
    always.into_iter().chain(program.plain.then_some("-gcflags=all=-N -l")).collect()
}

/// Whether the file is there as it was built: length and time of change as noted beside it (half a gigabyte is too
/// much to hash at every start).
fn intact(file: &Path) -> bool {
    let noted = fs::read_to_string(file.with_extension("built")).unwrap_or_default();
    shape(file).is_ok_and(|found| found == noted)
}

fn shape(file: &Path) -> std::io::Result<String> {
    let found = fs::metadata(file)?;
    Ok(format!("{} {}.{}", found.len(), found.mtime(), found.mtime_nsec()))
}

async fn build(go: &Path, sources: &Path, program: &Program, file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(sources);
    fs::create_dir_all(folder).map_err(Error::on(folder))?;
    let unfinished = file.with_extension(format!("{}.new", std::process::id()));
    let mut command = Command::new(go);
    let verb: &[&str] = if program.tests { &["test", "-c"] } else { &["build"] };
    command
        .args(verb)
        .args(flags(program))
        .arg(format!("-ldflags=-s -w {}", program.ldflags))
        .arg("-o")
        .arg(&unfinished);
    command.arg(program.package).current_dir(sources.join(program.module)).kill_on_drop(true);
    // Static, so that the same file runs on the machine and as a pod; the sums in go.sum are the only ones that count.
    command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local");
    // These are not in the public sum database under every version; go.sum pins them.
    command.env(
        "GONOSUMDB",
        "github.com/hashicorp/consul,github.com/hashicorp/consul/*,github.com/open-policy-agent/opa-envoy-plugin",
    );
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .stdin(std::process::Stdio::null());
    finish(command, &format!("go build {}", program.name), "").await?;
    let found = shape(&unfinished).map_err(Error::on(&unfinished))?;
    crate::home::write(&file.with_extension("built"), found)?;
    fs::rename(&unfinished, file).map_err(Error::on(file))
}

/// Makes or corrects a link without a moment in which it is not there.
fn link(to: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|there| there == to) {
        return Ok(());
    }
    let new = at.with_extension(format!("{}.new", std::process::id()));
    std::os::unix::fs::symlink(to, &new).map_err(Error::on(&new))?;
    fs::rename(&new, at).map_err(Error::on(at))
}

/// A Go that is new enough: the machine's, else one fetched through the machine's or Debian's older Go.
async fn find_go() -> Result<PathBuf> {
    for candidate in ["go", "/usr/local/go/bin/go"] {
        if minor(candidate).await.is_some_and(|minor| minor >= GO_MINOR_MIN) {
            return Ok(PathBuf::from(candidate));
        }
    }
    let mut old = "go";
    if minor(old).await.is_none() {
        crate::packages::install(&["golang-go", "ca-certificates"]).await?;
        old = "/usr/bin/go";
    }
    tracing::info!("fetch Go: {GO_TOOLCHAIN}");
    let mut command = Command::new(old);
    command.args(["mod", "download", "-json", GO_TOOLCHAIN]).current_dir("/").env("GO111MODULE", "on");
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .stdin(std::process::Stdio::null());
    let said = finish(command, "go mod download golang.org/toolchain", "").await?;
    let found: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    let dir = found["Dir"].as_str().ok_or_else(|| Error::Refused(format!("go mod download said `{said}`")))?;
    // A module's files come without their executable bits.
    run(&["chmod", "-R", "u+x", &format!("{dir}/bin"), &format!("{dir}/pkg/tool")]).await?;
    Ok(Path::new(dir).join("bin/go"))
}

/// The minor version of a Go, if it runs at all: 26 of `go version go1.26.8 linux/amd64`.
async fn minor(go: &str) -> Option<u32> {
    let said = run(&["env", "GOTOOLCHAIN=local", go, "version"]).await.ok()?;
    said.split("go1.").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
