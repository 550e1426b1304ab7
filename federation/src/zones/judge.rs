//! What is wrong with a Zone: the condition Accepted, which names the record, key or file.
//!
//! In: a Zone, its file, its keys. Out: a verdict. A zone whose spec makes no sense is not served; a record that is none is left out
//! alone, and the others are served. Verdicts are kept, so that large zone files are read once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use atoll_api::kinds::Zone;
use atoll_api::records;
use kube::ResourceExt as _;

use super::{file, keys, plain, served};
use crate::conditions::{Found, listed};
use crate::objects::Objects;

/// Judges zones.
#[derive(Default)]
pub(crate) struct Judge {
    faults: HashMap<String, (u64, Vec<String>)>,
}

impl Judge {
    /// The verdict on every Zone.
    pub(crate) fn verdicts(&mut self, objects: &Objects) -> Vec<(std::sync::Arc<Zone>, Found)> {
        let all = objects.zones.state();
        self.faults.retain(|name, _| all.iter().any(|z| z.name_any() == *name));
        let served = served(objects);
        let verdict = |zone: std::sync::Arc<Zone>| {
            let holder = served.iter().find(|z| plain(&z.spec.apex) == plain(&zone.spec.apex));
            let found = match (crate::accept::zone(&zone.spec), holder) {
                (Err(why), _) => Found::new("Accepted", false, "Invalid", format!("not served: {why}")),
                (Ok(()), Some(holder)) if holder.name_any() != zone.name_any() => {
                    let why = format!("not served: apex `{}` is Zone `{}`'s", zone.spec.apex, holder.name_any());
                    Found::new("Accepted", false, "Conflict", why)
                }
                _ => said(self.of(objects, &zone)),
            };
            (zone, found)
        };
        all.into_iter().map(verdict).collect()
    }

    fn of(&mut self, objects: &Objects, zone: &Zone) -> Vec<String> {
        let (mut said, text) = match file(objects, zone) {
            Ok(text) => (Vec::new(), text),
            Err(why) => (vec![why], None),
        };
        said.extend(keys::of(objects, zone).1);
        let mut hasher = DefaultHasher::new();
        (zone.metadata.generation, zone.uid(), &text).hash(&mut hasher);
        let fingerprint = hasher.finish();
        let held = self.faults.get(&zone.name_any()).filter(|(held, _)| *held == fingerprint);
        let faults = match held {
            Some((_, faults)) => faults.clone(),
            None => {
                let faults = records::own(&zone.spec, text.as_deref()).faults;
                self.faults.insert(zone.name_any(), (fingerprint, faults.clone()));
                faults
            }
        };
        said.extend(faults);
        said
    }
}

fn said(faults: Vec<String>) -> Found {
    let holds = faults.is_empty();
    Found::new("Accepted", holds, if holds { "Accepted" } else { "Invalid" }, listed(faults))
}
