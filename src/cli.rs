//! The commands: what people type, and which function that calls.
//!
//! ```text
//!   words ─► Cli (clap) ─► one file a command ─► hub's API, member's API, admin port, DNS server, or crate::run / crate::up
//! ```
//! Answers go to stdout, as one document with `-o json`; everything else goes to stderr. Never: decides anything that a part
//! decides.

mod admin;
mod check;
mod completions;
mod connect;
mod crds;
mod demo;
mod describe;
mod diff;
mod dns;
mod events;
mod explain;
mod failure;
mod foresight;
mod gateway;
mod get;
mod image;
mod import_ingress;
mod install;
mod join;
mod kinds;
mod output;
mod parts;
mod plan;
mod run_files;
mod shadow;
mod store;
pub(crate) mod stub;
mod token;
mod trace;
mod version;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use failure::Outcome;
use output::{Output, note};

/// Makes many Kubernetes clusters feel like one.
#[derive(Debug, Parser)]
#[command(name = "atoll", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Globals {
    /// The kubeconfig; default: KUBECONFIG, then $ATOLL_HOME/config (~/.atoll/config)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; default: its current one
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    context: Option<String>,
    /// The namespace; default: the context's, else `default`
    #[arg(short = 'n', long, global = true, value_name = "NAME", help_heading = "Global options")]
    namespace: Option<String>,
    /// text, wide, json, yaml or name
    #[arg(
        short = 'o',
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM",
        hide_possible_values = true,
        hide_default_value = true,
        help_heading = "Global options"
    )]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a whole federation on this machine, with demo members
    Up(parts::Up),
    /// Hurt the running `atoll up`, and mend it
    Demo(demo::Demo),
    /// Check that everything is there and well, and say what to do where it isn't
    Check(check::Check),
    /// Make a token that lets one cluster in
    Token(token::Token),
    /// Let a cluster in: install the agent into it, or run it beside it
    Join(join::Join),
    /// Show objects
    Get(get::Get),
    /// Show one object with its conditions and events
    Describe(describe::Describe),
    /// Say why an object is as it is, or what a kind's fields mean
    Explain(explain::Explain),
    /// Show what applying files would change
    Diff(diff::Diff),
    /// Wait until an object is as wished
    Wait(wait::Wait),
    /// Show what happened
    Events(events::Events),
    /// Say what would run where, or move when clusters fail
    Plan(plan::Plan),
    /// Copy images between registries behind approvals; export this program as an image
    Image(image::Image),
    /// Run the hub; save and restore its store
    Hub(parts::Hub),
    /// Run a DNS server; `dns query` asks one
    Dns(parts::Dns),
    /// Run a gateway; `gateway explain` asks one
    Gateway(parts::Gateway),
    /// Run the agent of a member
    Agent(parts::Agent),
    /// Print the definitions of our kinds
    Crds(crds::Crds),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Show versions
    Version(version::Version),
}

/// The commands as the help shows them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Start", &["up", "demo", "check"]),
    ("Clusters", &["token", "join"]),
    ("Objects", &["get", "describe", "explain", "diff", "wait", "events"]),
    ("Decisions", &["plan", "image"]),
    ("Parts, for production", &["hub", "dns", "gateway", "agent"]),
    ("Others", &["crds", "completions", "version"]),
];

/// The command line as clap knows it.
fn command() -> clap::Command {
    let command = Cli::command();
    let mut groups = String::new();
    for (heading, names) in GROUPS {
        groups.push_str(&format!("\n{heading}:\n"));
        for name in *names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            groups.push_str(&format!("  {name:<12} {about}\n"));
        }
    }
    let ending = "\n\nExit codes: 0 done, 1 failed, 2 usage, 3 refused by policy, 4 unreachable.\n";
    let template = format!("{{about}}\n\n{{usage-heading}} {{usage}}\n{groups}\n{{options}}{ending}");
    command.help_template(template)
}

/// Parses what was typed and runs it.
pub(crate) async fn main() -> anyhow::Result<ExitCode> {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(said) => {
            let _ = said.print();
            return Ok(ExitCode::from(if said.use_stderr() { 2 } else { 0 }));
        }
    };
    let cli = Cli::from_arg_matches(&matches)?;
    match cli.verb.run(&cli.globals).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            if !failure.message.is_empty() {
                note(format!("atoll: {}", failure.message));
            }
            Ok(ExitCode::from(failure.code))
        }
    }
}

impl Verb {
    /// Futures of commands are large and run once: each gets a box.
    async fn run(self, globals: &Globals) -> Outcome {
        match self {
            Self::Up(up) => Box::pin(up.run(globals)).await,
            Self::Demo(demo) => Box::pin(demo.run(globals)).await,
            Self::Check(check) => Box::pin(check.run(globals)).await,
            Self::Token(token) => Box::pin(token.run(globals)).await,
            Self::Join(join) => Box::pin(join.run(globals)).await,
            Self::Get(get) => Box::pin(get.run(globals)).await,
            Self::Describe(describe) => Box::pin(describe.run(globals)).await,
            Self::Explain(explain) => Box::pin(explain.run(globals)).await,
            Self::Diff(diff) => Box::pin(diff.run(globals)).await,
            Self::Wait(wait) => Box::pin(wait.run(globals)).await,
            Self::Events(events) => Box::pin(events.run(globals)).await,
            Self::Plan(plan) => Box::pin(plan.run(globals)).await,
            Self::Image(image) => Box::pin(image.run(globals)).await,
            Self::Hub(hub) => Box::pin(hub.run(globals)).await,
            Self::Dns(dns) => Box::pin(dns.run(globals)).await,
            Self::Gateway(gateway) => Box::pin(gateway.run(globals)).await,
            Self::Agent(agent) => Box::pin(agent.run(globals)).await,
            Self::Crds(crds) => Box::pin(crds.run(globals)).await,
            Self::Completions(completions) => completions.run(),
            Self::Version(version) => Box::pin(version.run(globals)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_the_help_names_every_command() {
        let command = command();
        command.clone().debug_assert();
        let named: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for subcommand in command.get_subcommands() {
            assert!(named.contains(&subcommand.get_name()), "{} is in no group", subcommand.get_name());
        }
        assert_eq!(named.len(), command.get_subcommands().count());
    }

    /// Commands of the fenced shell blocks of a page, without comments.
    fn commands_of(page: &str) -> Vec<String> {
        let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or(line).trim());
        lines.filter(|line| line.starts_with("atoll ")).map(str::to_owned).collect()
    }

    #[test]
    fn every_command_of_the_pages_is_one() {
        let pages = [include_str!("../README.md"), include_str!("../docs/getting-started.md")];
        let mut seen = 0;
        for line in pages.into_iter().flat_map(commands_of) {
            // What stands for words of the reader's.
            let line = line.replace(" HUB ", " hub:7443 ");
            let parsed = command().try_get_matches_from(line.split_whitespace());
            assert!(parsed.is_ok(), "`{line}`: {}", parsed.unwrap_err());
            seen += 1;
        }
        assert!(seen > 20, "only {seen} commands were found");
    }

    #[test]
    fn what_was_typed_is_read() {
        for (line, fine) in [
            ("up --members dev,test -o json", true),
            ("token create prod-eu --region eu-central --ttl 15m", true),
            ("join hub:7443 --token t --foreground", true),
            ("join hub:7443 --install --image atoll:1", true),
            ("join hub:7443 --install --foreground", false),
            ("join hub", false),
            ("hub --config x.yaml", true),
            ("hub snapshot s.redb", true),
            ("hub restore s.redb --data-dir d", true),
            ("hub restore s.redb", false),
            ("dns --config x.yaml", true),
            ("dns query web.shop.svc.atoll.internal AAAA --from eu --trace", true),
            ("dns query x --from eu --ecs 10.0.0.0/8", false),
            ("dns stub --for unbound --server 192.0.2.1:53 192.0.2.2", true),
            ("dns stub", false),
            ("gateway explain --host h --path /p", true),
            ("gateway explain --path /p", false),
            ("gateway import-ingress -f a.yaml -f b.yaml --class nginx", true),
            ("gateway import-ingress", false),
            ("gateway shadow --log l --old a:80 --new b:80 --unsafe-methods", true),
            ("gateway shadow --log l", false),
            ("plan failure prod-eu prod-us", true),
            ("plan failure --region eu-central", true),
            ("plan failure", false),
            ("image approve web-1 -n shop", true),
            ("get clusters -o csv", false),
            ("nonsense", false),
        ] {
            let words = std::iter::once("atoll").chain(line.split(' '));
            assert_eq!(command().try_get_matches_from(words).is_ok(), fine, "{line}");
        }
    }
}
