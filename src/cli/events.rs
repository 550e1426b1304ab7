//! `atoll events`: what happened, the newest last.

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};

use super::Globals;
use super::connect::WATCH_AGAIN;
use super::failure::{Failure, Outcome};
use super::kinds;
use super::output::{Output, age, columns, note, print};

/// Show what happened.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Only about this object, KIND/NAME
    #[arg(long = "for", value_name = "KIND/NAME")]
    about: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on showing what happens
    #[arg(short = 'w', long)]
    watch: bool,
}

impl Events {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        if self.watch && !matches!(globals.output, Output::Text | Output::Wide) {
            return Err(Failure::usage("--watch shows text"));
        }
        let at = globals.hub().await?;
        let fields = match &self.about {
            Some(word) => {
                let (kind, name) = kinds::one(std::slice::from_ref(word))?;
                let kind = kinds::find(&at.client, &kind).await?.resource.kind;
                Some(format!("involvedObject.name={name},involvedObject.kind={kind}"))
            }
            None => None,
        };
        let api: Api<Event> = match self.all_namespaces {
            true => Api::all(at.client.clone()),
            false => Api::namespaced(at.client.clone(), &at.namespace),
        };
        let params = ListParams { field_selector: fields.clone(), ..ListParams::default() };
        let list = api.list(&params).await.map_err(Failure::api("list events"))?;
        let mut events = list.items;
        events.sort_by_key(time_of);
        let now = Timestamp::now();
        globals.output.show(&events, || {
            if events.is_empty() {
                note("no events here");
                return String::new();
            }
            let rows = events.iter().map(|event| row(event, now, self.all_namespaces));
            columns(&headings(self.all_namespaces), rows)
        })?;
        if !self.watch {
            return Ok(());
        }
        let params = WatchParams { field_selector: fields, ..WatchParams::default() };
        let mut version = list.metadata.resource_version.unwrap_or_default();
        loop {
            let stream = api.watch(&params, &version).await.map_err(Failure::api("watch events"))?;
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event.map_err(Failure::api("watch events"))? {
                    WatchEvent::Added(event) | WatchEvent::Modified(event) => {
                        version = event.metadata.resource_version.clone().unwrap_or_default();
                        print(row(&event, Timestamp::now(), self.all_namespaces).join("   "));
                    }
                    WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                    WatchEvent::Deleted(_) => {}
                    WatchEvent::Error(status) => {
                        return Err(Failure::failed(format!("watch events: {}", status.message)));
                    }
                }
            }
            // A server that ends watches at once is not asked all the time.
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }
}

/// When it was seen last.
pub(crate) fn time_of(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().or(event.first_timestamp.as_ref()).map(|t| t.0);
    let created = || event.metadata.creation_timestamp.as_ref().map(|t| t.0);
    last.or_else(|| event.event_time.as_ref().map(|t| t.0)).or_else(created)
}

fn headings(namespaced: bool) -> Vec<&'static str> {
    let namespace = namespaced.then_some("Namespace");
    namespace.into_iter().chain(["Last seen", "Type", "Reason", "Object", "Message"]).collect()
}

fn row(event: &Event, now: Timestamp, namespaced: bool) -> Vec<String> {
    let about = &event.involved_object;
    let object = format!(
        "{}/{}",
        about.kind.as_deref().unwrap_or_default().to_lowercase(),
        about.name.as_deref().unwrap_or_default()
    );
    let word = |field: &Option<String>| field.clone().unwrap_or_default();
    let namespace = namespaced.then(|| word(&event.metadata.namespace));
    let cells = [age(time_of(event), now), word(&event.type_), word(&event.reason), object, word(&event.message)];
    namespace.into_iter().chain(cells).collect()
}
