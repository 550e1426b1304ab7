//! What a caller may ask of each member: its name, size, registry, and whether its pods have routes.
//! In: text as `cargo testbed up --members` takes it. Out: [`MemberSpec`]. Never touches the machine.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The program behind a member's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryProgram {
    /// Debian's docker-registry 2.8.
    Docker2,
    /// Distribution 3.
    Distribution3,
}

/// One member as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// One DNS label.
    pub name: String,
    /// Whether others have routes to its pods and services; its node address is reachable always.
    pub routed: bool,
    /// Allocatable CPU of its node in thousandths; the machine's own count is the most it gets.
    pub cpu_milli: u32,
    /// Allocatable memory of its node in MiB.
    pub memory_mib: u32,
    /// Pods that its node takes at most, those of kube-system and the echo pods included.
    pub pods_max: u32,
    /// Which registry program it runs.
    pub registry: RegistryProgram,
    /// Whether its registry asks for a password (for pull and push).
    pub registry_password: bool,
    /// Another member whose pod and service ranges it uses as its own (which leaves it without routes).
    pub overlaps: Option<String>,
}

/// The members of the story, in order.
pub const MEMBERS: [&str; 5] = ["dev", "test", "prod-eu", "prod-us", "dr"];

impl MemberSpec {
    /// A member of that name with the story's properties where the story knows the name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let guarded = matches!(name, "prod-eu" | "prod-us" | "dr");
        let distribution = matches!(name, "test" | "prod-eu" | "dr");
        Self {
            name: name.to_owned(),
            routed: name != "dr",
            cpu_milli: 2000,
            memory_mib: 4096,
            pods_max: 60,
            registry: if distribution { RegistryProgram::Distribution3 } else { RegistryProgram::Docker2 },
            registry_password: guarded,
            overlaps: None,
        }
    }

    /// The five members of the story.
    #[must_use]
    pub fn story() -> Vec<Self> {
        MEMBERS.iter().map(|name| Self::named(name)).collect()
    }

    /// Parses `dev,prod-us:cpu=1000:pods=20,dr:routed=false:overlaps=dev`.
    ///
    /// # Errors
    /// An unknown key, a bad value, a name that is no DNS label or stands twice: the caller's fault.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        let mut members: Vec<Self> = Vec::new();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let member: Self = one.parse()?;
            if members.iter().any(|other| other.name == member.name) {
                return Err(Error::Refused(format!("member `{}` is named twice", member.name)));
            }
            members.push(member);
        }
        Ok(members)
    }
}

impl FromStr for MemberSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        let label = !name.is_empty()
            && name.len() <= 20
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !label || matches!(name, "hub" | "lab") {
            return Err(Error::Refused(format!(
                "member `{name}`: a name is a DNS label of at most 20 characters, and neither hub nor lab"
            )));
        }
        let mut member = Self::named(name);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, "true"));
            let bad = || Error::Refused(format!("member `{name}`: `{word}` is not key=value as it should be"));
            match key {
                "routed" => member.routed = value.parse().map_err(|_| bad())?,
                "cpu" => member.cpu_milli = value.parse().map_err(|_| bad())?,
                "memory" => member.memory_mib = value.parse().map_err(|_| bad())?,
                "pods" => member.pods_max = value.parse().map_err(|_| bad())?,
                "password" => member.registry_password = value.parse().map_err(|_| bad())?,
                "overlaps" => member.overlaps = Some(value.to_owned()),
                "registry" => {
                    member.registry = match value {
                        "docker2" => RegistryProgram::Docker2,
                        "distribution3" => RegistryProgram::Distribution3,
                        _ => return Err(bad()),
                    }
                }
                _ => {
                    return Err(Error::Refused(format!(
                        "member `{name}`: no key `{key}`; there are routed, cpu, memory, pods, registry, password, overlaps"
                    )));
                }
            }
        }
        Ok(member)
    }
}
