//! What can be done with objects: one file per verb, the way of every write in `write`.

mod admit;
mod create;
mod delete;
mod events;
mod read;
mod scale;
mod services;
mod update;
mod watch;
mod write;

use std::sync::Arc;

pub(crate) use self::{
    create::create,
    delete::{FOREGROUND, ORPHAN, delete, delete_collection, delete_quietly, finish_deletion},
    read::{get, list},
    services::Given,
    update::{patch, update},
    watch::watch,
};
use crate::{
    config::User,
    http::{Options, Target, View},
    kinds::Resource,
    refusal::Refusal,
    server::Inner,
    store::{Key, Unwritten},
};

/// One request, understood and allowed.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Arc<Inner>,
    pub(crate) user: &'a User,
    pub(crate) target: &'a Target,
    pub(crate) options: &'a Options,
    pub(crate) view: View,
    pub(crate) agent: &'a str,
}

impl Call<'_> {
    fn resource(&self) -> &Arc<Resource> {
        &self.target.resource
    }

    fn key(&self) -> Key {
        Key::new(&self.resource().collection, &self.target.namespace, &self.target.name)
    }

    /// The field manager: as asked, else the first word of the user agent.
    fn manager(&self) -> &str {
        let word = self.agent.split('/').next().unwrap_or_default();
        if self.options.manager.is_empty() { word } else { &self.options.manager }
    }

    fn not_found(&self) -> Refusal {
        Refusal::not_found(&self.resource().group, &self.resource().plural, &self.target.name)
    }

    /// A refusal for a write that the store refused.
    fn unwritten(&self, name: &str, why: Unwritten) -> Refusal {
        let (group, plural) = (&self.resource().group, &self.resource().plural);
        match why {
            Unwritten::Exists => Refusal::already_exists(group, plural, name),
            Unwritten::Missing => Refusal::not_found(group, plural, name),
            Unwritten::Modified => Refusal::modified(group, plural, name),
            Unwritten::Closed => Refusal::internal("the server is shutting down; nothing was written"),
            Unwritten::Disk { message, full } => {
                let what = if full { "the disk is full" } else { "the data file can't be written" };
                Refusal::storage(format!("{what}: {message}; {plural} \"{name}\" was not changed"), full)
            }
        }
    }
}
