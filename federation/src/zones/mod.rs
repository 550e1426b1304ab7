//! The hub's DNS zones: what is wrong with them, their serials, their keys, and the updates that DNS servers pass on.
//!
//! ```text
//!   Zone ── judge (condition Accepted) ──┐
//!   ConfigMap (zone file) ───────────────┼─► content: entries with serials ──► topology ──► DNS servers
//!   Secret (TSIG, signing keys) ── keys ─┘
//!   UPDATE ── DNS server ── update: authorise, apply, store ──► DNSEndpoint atoll-system/update-<zone>
//! ```
//!
//! Never answers a query. Whatever is acknowledged is an object of the API first.

mod content;
mod fixed;
mod judge;
mod keys;
mod update;

use std::sync::Arc;

use atoll_api::kinds::{SYSTEM_NAMESPACE, Zone};
pub(crate) use content::{Entry, Known, RESIGN_S};
pub(crate) use judge::Judge;
pub(crate) use keys::SigningKeys;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
pub(crate) use update::ZonesService;

use crate::objects::Objects;

/// The zones that are served: those whose spec makes sense, and of several with one apex the first.
fn served(objects: &Objects) -> Vec<Arc<Zone>> {
    let mut zones = objects.zones.state();
    zones.retain(|zone| crate::accept::zone(&zone.spec).is_ok());
    zones.sort_by_key(|zone| (plain(&zone.spec.apex), zone.creation_timestamp(), zone.name_any()));
    zones.dedup_by_key(|zone| plain(&zone.spec.apex));
    zones
}

/// A name without regard to case and the last dot.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The zone file of a Zone.
///
/// # Errors
/// When it refers to one that is not there.
fn file(objects: &Objects, zone: &Zone) -> Result<Option<String>, String> {
    let Some(file) = &zone.spec.zone_file else { return Ok(None) };
    match (&file.text, &file.config_map_ref) {
        (Some(text), None) => Ok(Some(text.clone())),
        (None, Some(at)) => {
            let map = objects.config_maps.get(&ObjectRef::new(&at.name).within(SYSTEM_NAMESPACE));
            let text = map.and_then(|map| map.data.as_ref()?.get(&at.key).cloned());
            text.map(Some).ok_or_else(|| {
                format!("zoneFile: ConfigMap {SYSTEM_NAMESPACE}/{} with key `{}`: there is none", at.name, at.key)
            })
        }
        _ => Err("zoneFile: one of `text` and `configMapRef` must be given".to_owned()),
    }
}
