//! `atoll image request IMAGE… --policy P`: asks for images to be copied.

use atoll_api::kinds::{ReplicationRequest, ReplicationRequestSpec};
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};

use super::Globals;
use crate::cli::failure::{Failure, Outcome};

/// Names that are tried when the first is taken.
const NAMES_MAX: u32 = 50;
const NAME_LEN_MAX: usize = 50;

/// Ask for images to be copied.
#[derive(Debug, clap::Args)]
pub(crate) struct RequestImages {
    /// For example shop/web:2 or shop/web@sha256:…
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The ReplicationPolicy that says from where to where
    #[arg(long, short = 'p')]
    policy: String,
    /// The request's name; default: made of the first image
    #[arg(long)]
    name: Option<String>,
}

impl RequestImages {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let at = globals.hub().await?;
        let requests: Api<ReplicationRequest> = Api::namespaced(at.client.clone(), &at.namespace);
        let stem = name_of(&self.images[0]);
        let names: Vec<String> = match self.name {
            Some(name) => vec![name],
            None => {
                let others = (2..=NAMES_MAX).map(|n| format!("{stem}-{n}"));
                std::iter::once(stem.clone()).chain(others).collect()
            }
        };
        let spec = ReplicationRequestSpec { policy: self.policy, images: self.images, withdrawn: false };
        let mut taken = None;
        for name in &names {
            match requests.create(&PostParams::default(), &ReplicationRequest::new(name, spec.clone())).await {
                Ok(made) => {
                    let (namespace, name) = (at.namespace, made.name_any());
                    return globals.output.show(&made, || {
                        format!(
                            "request {namespace}/{name} made\nwhat becomes of it: atoll image status {name} -n {namespace}\nsomebody else agrees: atoll image approve {name} -n {namespace}"
                        )
                    });
                }
                Err(kube::Error::Api(status)) if status.code == 409 => taken = Some(status.message.clone()),
                Err(error) => return Err(Failure::of_api(format!("request `{}/{name}`", at.namespace), &error)),
            }
        }
        let why = taken.unwrap_or_else(|| "no name is free".into());
        Err(Failure::failed(format!("request: {why}; choose another name with --name")))
    }
}

/// `shop/web:2` → `web-2`.
fn name_of(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let short = last
        .split_once("@sha256:")
        .map_or(last.to_owned(), |(name, digest)| format!("{name}-{}", digest.chars().take(8).collect::<String>()));
    let label: String = short
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_LEN_MAX)
        .collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "images".into() } else { label.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_request_is_named_after_its_first_image() {
        for (image, name) in [
            ("shop/web:2", "web-2"),
            ("web", "web"),
            ("shop/Web_x:v1.2", "web-x-v1-2"),
            ("shop/web@sha256:0123456789abcdef", "web-01234567"),
            ("", "images"),
        ] {
            assert_eq!(name_of(image), name, "{image}");
        }
    }
}
