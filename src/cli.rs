//! The commands: what people type, and which function that calls.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{run, up};

#[derive(Parser)]
#[command(name = "atoll", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole federation on this machine
    Up {
        /// Demo members by name, or 0 for none
        #[arg(long, value_delimiter = ',')]
        members: Option<Vec<String>>,
        /// Keep the state there
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Listen and advertise as this file says
        #[arg(long)]
        config: Option<PathBuf>,
        /// `json`: one line when ready
        #[arg(short)]
        output: Option<String>,
    },
    /// Run the hub
    Hub {
        /// The configuration
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Run the DNS server
    Dns {
        /// The configuration
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Run the gateway
    Gateway {
        /// The configuration
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Run the agent of a member
    Agent {
        /// The configuration
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

/// Parses what was typed and runs it.
pub(crate) async fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Up { members, data_dir, config, output } => {
            let members = members.map(|m| if m == ["0"] { Vec::new() } else { m });
            up::run(up::Options { members, data_dir, config, json: output.as_deref() == Some("json") }).await?;
        }
        Command::Hub { config } => run::hub(config).await?,
        Command::Dns { config } => run::dns(config).await?,
        Command::Gateway { config } => run::gateway(config).await?,
        Command::Agent { config } => run::agent(run::AgentOptions { config, ..Default::default() }).await?,
    }
    Ok(ExitCode::SUCCESS)
}
