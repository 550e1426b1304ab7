//! `atoll image history [NAME]`: the audit of requests: each change of state, with who asked and who voted.

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;

use super::Globals;
use crate::cli::events::time_of;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::{columns, note};

/// Show what became of requests.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// The request's name; none: all of the namespace
    name: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl History {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        let events: Api<Event> = match self.all_namespaces {
            true => Api::all(at.client.clone()),
            false => Api::namespaced(at.client.clone(), &at.namespace),
        };
        let mut fields = "involvedObject.kind=ReplicationRequest".to_owned();
        if let Some(name) = &self.name {
            fields = format!("{fields},involvedObject.name={name}");
        }
        let list = events.list(&ListParams::default().fields(&fields)).await.map_err(Failure::api("list events"))?;
        let mut list = list.items;
        list.sort_by_key(time_of);
        globals.output.show(&list, || {
            if list.is_empty() {
                note("nothing happened to requests here");
                return String::new();
            }
            let rows = list.iter().map(|event| {
                vec![
                    time_of(event).map(|t| t.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default(),
                    event.involved_object.name.clone().unwrap_or_default(),
                    event.reason.clone().unwrap_or_default(),
                    event.message.clone().unwrap_or_default(),
                ]
            });
            columns(&["Time", "Request", "State", "What"], rows)
        })
    }
}
