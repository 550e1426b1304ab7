//! `atoll image …`: bring images from one member's registry to another's, with the votes that its policy asks for; and
//! `export`, this program as an image.
//!
//! ```text
//!   plan (what a policy lets through) → request → approve | reject (votes) → status, history
//! ```
//! Requests, votes and policies are objects of the hub's API. Who asks and who votes is whom the API server knows.

mod elf;
mod export;
mod history;
mod layer;
mod plan;
mod request;
mod status;
mod vote;

use atoll_api::kinds::ReplicationRequest;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::{Api, Client};

use super::Globals;
use super::connect::Connection;
use super::failure::{Failure, Outcome};

/// Copy images between registries behind approvals.
#[derive(Debug, clap::Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say whether a policy lets images through, and who would have to agree
    Plan(plan::Plan),
    /// Ask for images to be copied
    Request(request::RequestImages),
    /// Vote for a request
    Approve(vote::Approve),
    /// Vote against a request
    Reject(vote::Reject),
    /// Show how far requests are
    Status(status::Status),
    /// Show what became of requests: who asked, who voted, when
    History(history::History),
    /// Write this program as a container image for `ctr images import`
    Export(export::Export),
}

impl Image {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        match self.verb {
            Verb::Plan(plan) => plan.run(globals).await,
            Verb::Request(request) => request.run(globals).await,
            Verb::Approve(vote) => vote.run(globals).await,
            Verb::Reject(vote) => vote.run(globals).await,
            Verb::Status(status) => status.run(globals).await,
            Verb::History(history) => history.run(globals).await,
            Verb::Export(export) => export.run(globals),
        }
    }
}

/// Whom the API server takes us for: name and groups.
pub(super) async fn who_am_i(client: &Client) -> Outcome<(String, Vec<String>)> {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(Failure::api("ask the API server who I am"))?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    Ok((user.username.unwrap_or_default(), user.groups.unwrap_or_default()))
}

/// Reads a request of the namespace at hand.
async fn read_request(at: &Connection, name: &str) -> Outcome<ReplicationRequest> {
    let what = format!("request `{}/{name}`", at.namespace);
    let requests: Api<ReplicationRequest> = Api::namespaced(at.client.clone(), &at.namespace);
    let found = requests.get_opt(name).await.map_err(Failure::api(&what))?;
    found.ok_or_else(|| {
        Failure::failed(format!(
            "{what}: there is none; `atoll image status -n {}` lists those there are",
            at.namespace
        ))
    })
}
