//! One part each, for production: hub, DNS server, gateway, agent. Each reads the file, binds its ports, and runs until a signal.

mod address;
mod agent;
mod apis;
mod copies;
mod dns;
mod followed;
mod gateway;
mod hub;
mod node;
mod part;
mod places;
mod push;
mod stub;

use std::path::{Path, PathBuf};

pub(crate) use crate::crds::crds;
pub(crate) use agent::{AgentOptions, agent};
pub(crate) use copies::engine;
pub(crate) use dns::{DnsParts, dns, run_dns};
pub(crate) use gateway::{GatewayParts, gateway, leave, run_gateway};
pub(crate) use hub::{HubParts, hub, run_hub, settings};
pub(crate) use part::Part;

/// The directory of one part within the data directory.
fn own(data_dir: Option<&Path>, part: &str) -> Option<PathBuf> {
    data_dir.map(|dir| dir.join(part))
}
