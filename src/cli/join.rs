//! `atoll join HUB --token T`: lets this cluster into the federation, with the agent as a pod in it, or here beside it.

use std::path::PathBuf;

use atoll_api::token::JoinToken;
use atoll_reach::host_and_port;

use super::connect::Connection;
use super::failure::{Failure, Outcome};
use super::{Globals, install};
use crate::run;

/// Let a cluster into the federation.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "--kubeconfig and --context name the cluster that joins; default: KUBECONFIG, else the pod's own account."
)]
pub(crate) struct Join {
    /// The hub, host:port, as `atoll token create` printed it
    #[arg(value_parser = host_port)]
    hub: String,
    /// The token that `atoll token create` printed; default: ATOLL_TOKEN
    #[arg(long, value_name = "T", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token
    #[arg(long, value_name = "F")]
    token_file: Option<PathBuf>,
    /// Install the agent into the cluster, as a pod (the default)
    #[arg(long, conflicts_with = "foreground")]
    install: bool,
    /// Run the agent here, beside the cluster, until interrupted
    #[arg(long, conflicts_with = "image")]
    foreground: bool,
    /// The agent's image; `atoll image export` writes it
    #[arg(long, value_name = "I")]
    image: Option<String>,
    /// How long the agent may take to join
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = atoll_api::duration::parse)]
    timeout: std::time::Duration,
}

impl Join {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let token = self.token()?;
        let member = globals.member().await?;
        check(&member).await?;
        let already = install::joined_as(&member.client).await?;
        match (&token, &already) {
            (None, None) => {
                return Err(Failure::usage(
                    "no token: give --token, --token-file or ATOLL_TOKEN; `atoll token create CLUSTER` at the hub prints the command",
                ));
            }
            (Some(token), Some(name)) if token.cluster.as_str() != name => {
                return Err(Failure::refused(format!(
                    "this cluster is joined as `{name}` already, the token is for `{}`; to join it anew: kubectl -n atoll-system delete secret atoll-agent",
                    token.cluster
                )));
            }
            _ => {}
        }
        if self.foreground {
            let options = run::AgentOptions {
                hub: Some(self.hub),
                token: token.map(|token| token.to_string()),
                kubeconfig: globals.kubeconfig.clone(),
                context: globals.context.clone(),
                ..run::AgentOptions::default()
            };
            return Ok(run::agent(options).await?);
        }
        let name = token.as_ref().map(|t| t.cluster.to_string()).or(already).unwrap_or_default();
        let image = self.image.unwrap_or_else(|| concat!("atoll:", env!("CARGO_PKG_VERSION")).to_owned());
        let agent = install::Agent { hub: self.hub, token, name, image, timeout: self.timeout };
        agent.install(&member, globals.output).await
    }

    fn token(&self) -> Outcome<Option<JoinToken>> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|e| Failure::usage(format!("--token-file {}: {e}", file.display())))?,
            (None, None) => match std::env::var("ATOLL_TOKEN") {
                Ok(token) if !token.is_empty() => token,
                _ => return Ok(None),
            },
        };
        text.trim().parse().map(Some).map_err(|e: atoll_api::token::BadToken| Failure::usage(e.to_string()))
    }
}

/// Says in time that the kubeconfig is of no use.
async fn check(member: &Connection) -> Outcome {
    let what = format!("cluster at {}", member.url);
    member.client.apiserver_version().await.map_err(Failure::api(&what))?;
    Ok(())
}

fn host_port(text: &str) -> Result<String, String> {
    let wrong = || "write host:port, as `atoll token create` prints it".to_owned();
    match host_and_port(text) {
        Some((_, 1..)) => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::host_port;

    #[test]
    fn a_hub_is_host_and_port() {
        for good in ["hub.example.com:7443", "127.0.0.1:7443", "[::1]:7443"] {
            assert!(host_port(good).is_ok(), "{good}");
        }
        for bad in ["", "hub", "hub:", ":7443", "hub:0", "hub:99999", "https://hub:7443"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }
}
