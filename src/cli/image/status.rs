//! `atoll image status [NAME]`: how far requests are, or one with its images and votes.

use atoll_api::kinds::ReplicationRequest;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::{Globals, read_request};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::{age, columns, note};

/// Show how far requests are.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The request's name; none: all of the namespace
    name: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl Status {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        if let Some(name) = &self.name {
            let request = read_request(&at, name).await?;
            return globals.output.show(&request, || one(&request));
        }
        let requests: Api<ReplicationRequest> = match self.all_namespaces {
            true => Api::all(at.client.clone()),
            false => Api::namespaced(at.client.clone(), &at.namespace),
        };
        let list = requests.list(&ListParams::default()).await.map_err(Failure::api("list requests"))?.items;
        let now = Timestamp::now();
        globals.output.show(&list, || {
            if list.is_empty() {
                note(format!("no requests in namespace {}", at.namespace));
                return String::new();
            }
            columns(
                &["Namespace", "Name", "State", "Requester", "Images", "Age", "Message"],
                list.iter().map(|r| row(r, now)),
            )
        })
    }
}

fn row(request: &ReplicationRequest, now: Timestamp) -> Vec<String> {
    let status = request.status.clone().unwrap_or_default();
    vec![
        request.namespace().unwrap_or_default(),
        request.name_any(),
        format!("{:?}", status.state),
        status.requester.unwrap_or_default(),
        request.spec.images.join(", "),
        age(request.creation_timestamp().map(|t| t.0), now),
        status.message.unwrap_or_default(),
    ]
}

fn one(request: &ReplicationRequest) -> String {
    let status = request.status.clone().unwrap_or_default();
    let mut rows = vec![
        vec!["Request".to_owned(), format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any())],
        vec!["Policy".into(), request.spec.policy.clone()],
        vec!["Requester".into(), status.requester.unwrap_or_else(|| "not known yet".into())],
        vec!["State".into(), format!("{:?}", status.state)],
        vec!["Message".into(), status.message.unwrap_or_default()],
        vec!["Closure".into(), status.closure.unwrap_or_default()],
    ];
    for image in &request.spec.images {
        let root = status.roots.iter().find(|root| root.image == *image);
        rows.push(vec!["Image".into(), format!("{image}   {}", root.map_or("", |root| &root.digest))]);
    }
    for check in &status.checks {
        rows.push(vec!["Check".into(), format!("{} {}: {}", check.type_, check.status, check.message)]);
    }
    for vote in &status.votes {
        let counts = if vote.counts { "counts" } else { "does not count" };
        let reason = vote.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
        rows.push(vec!["Vote".into(), format!("{} by {}, {counts}{reason}", vote.decision, vote.voter)]);
    }
    if let Some(copied) = &status.copied {
        let moved = format!("{} of {} bytes, {} blobs were there", copied.bytes, copied.bytes_total, copied.skipped);
        rows.push(vec!["Copied".into(), moved]);
    }
    rows.retain(|row| !row[1].is_empty());
    columns::<String, String>(&[], rows)
}
