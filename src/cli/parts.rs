//! The commands that run something: `up`, and one part each: `hub`, `dns`, `gateway`, `agent`, with the verbs that belong to a part.

use std::path::PathBuf;
use std::time::Duration;

use super::failure::{Failure, Outcome};
use super::output::Output;
use super::{Globals, dns, gateway, import_ingress, shadow, store, stub};
use crate::{run, up};

/// Start a whole federation on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Demo members by name, for example dev,test,prod-eu; 0 for none
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    members: Option<Vec<String>>,
    /// Keep the state in this directory, and go on from it the next time
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Listen and advertise as this file says, so that agents elsewhere can join
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Up {
    /// Runs until a signal.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let json = match globals.output {
            Output::Json => true,
            Output::Text | Output::Wide => false,
            Output::Yaml | Output::Name => {
                return Err(Failure::usage("`atoll up` prints text, or one line with -o json"));
            }
        };
        let members = self.members.map(|names| if names == ["0"] { Vec::new() } else { names });
        let options = up::Options { members, data_dir: self.data_dir, config: self.config, json };
        Ok(up::run(options).await?)
    }
}

/// Run the hub, or save and restore its own store.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Hub {
    #[command(subcommand)]
    verb: Option<HubVerb>,
    /// The configuration (docs/configuration.md)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum HubVerb {
    /// Save everything in the embedded store of a running hub
    Snapshot(store::Snapshot),
    /// Put a snapshot in the place of the embedded store of a stopped hub
    Restore(store::Restore),
}

impl Hub {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        match self.verb {
            Some(HubVerb::Snapshot(snapshot)) => snapshot.run(globals).await,
            Some(HubVerb::Restore(restore)) => restore.run().await,
            None => Ok(run::hub(self.config).await?),
        }
    }
}

/// Run a DNS server, or ask one.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dns {
    #[command(subcommand)]
    verb: Option<DnsVerb>,
    /// The configuration (docs/configuration.md)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum DnsVerb {
    /// Ask for a name, and say how the answer came about
    Query(dns::Query),
    /// Print the configuration with which a resolver asks Atoll for its names
    Stub(stub::Command),
}

impl Dns {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        match self.verb {
            Some(DnsVerb::Query(query)) => query.run(globals).await,
            Some(DnsVerb::Stub(stub)) => stub.run(globals).await,
            None => Ok(run::dns(self.config).await?),
        }
    }
}

/// Run the gateway, or ask where it would send a request.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Gateway {
    #[command(subcommand)]
    verb: Option<GatewayVerb>,
    /// The configuration (docs/configuration.md)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the place of the gateway that runs with this configuration: its sockets, without a lost connection
    #[arg(long)]
    take_over: bool,
}

#[derive(Debug, clap::Subcommand)]
enum GatewayVerb {
    /// Say which route, cluster and endpoint a request would get
    Explain(gateway::Explain),
    /// Show routes, with where they are served and where they lead
    Routes(gateway::View),
    /// Show services, with their clusters and endpoints as they are
    Upstreams(gateway::View),
    /// Show connections of clients, the oldest first
    Connections(gateway::View),
    /// Show what the gateway was told
    Config(gateway::View),
    /// Send nothing new to a cluster or endpoint
    Drain(gateway::Hold),
    /// Send nothing to a cluster or endpoint, and end what is under way
    Disable(gateway::Hold),
    /// Use a cluster or endpoint again
    Enable(gateway::Hold),
    /// Let a running gateway say that it is not ready, and wait, before it is told to end
    Leave(Leave),
    /// Print Ingresses as Gateway API objects, and on stderr what has no target
    ImportIngress(import_ingress::ImportIngress),
    /// Replay a log through the old ingress and Atoll and compare what they answer
    Shadow(shadow::Shadow),
    /// Print the schema of what balancers behind a webhook are told, and what they answer
    ProviderSchema,
}

/// Let a running gateway say that it is not ready.
#[derive(Debug, clap::Args)]
pub(crate) struct Leave {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// So many seconds, in which balancers see it
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    wait: u64,
}

impl Gateway {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        match self.verb {
            Some(GatewayVerb::Explain(explain)) => explain.run(globals).await,
            Some(GatewayVerb::Routes(view)) => view.run(globals, "routes").await,
            Some(GatewayVerb::Upstreams(view)) => view.run(globals, "upstreams").await,
            Some(GatewayVerb::Connections(view)) => view.run(globals, "connections").await,
            Some(GatewayVerb::Config(view)) => view.run(globals, "config").await,
            Some(GatewayVerb::Drain(hold)) => hold.run(globals, Some("drain")).await,
            Some(GatewayVerb::Disable(hold)) => hold.run(globals, Some("disable")).await,
            Some(GatewayVerb::Enable(hold)) => hold.run(globals, None).await,
            Some(GatewayVerb::Shadow(shadow)) => shadow.run(globals).await,
            Some(GatewayVerb::ProviderSchema) => gateway::provider_schema(globals),
            Some(GatewayVerb::ImportIngress(import)) => import.run(globals).await,
            Some(GatewayVerb::Leave(leave)) => Ok(run::leave(leave.config, Duration::from_secs(leave.wait)).await?),
            None => Ok(run::gateway(self.config, self.take_over).await?),
        }
    }
}

/// Run the agent of a member that has joined, or that its configuration has a token for.
#[derive(Debug, clap::Args)]
pub(crate) struct Agent {
    /// The configuration (docs/configuration.md)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Agent {
    /// Runs until a signal.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        let (kubeconfig, context) = (globals.kubeconfig.clone(), globals.context.clone());
        let options = run::AgentOptions { config: self.config, kubeconfig, context, ..run::AgentOptions::default() };
        Ok(run::agent(options).await?)
    }
}
