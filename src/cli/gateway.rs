//! `atoll gateway explain`: where the gateway would send a request, asked of its admin port.

use super::Globals;
use super::failure::{Failure, Outcome};
use super::output::yaml;
use super::run_files::Ready;

/// Say which route, cluster and endpoint a request would get.
#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The host, for example shop.example.com
    #[arg(long, value_name = "H")]
    host: String,
    /// The path
    #[arg(long, value_name = "P", default_value = "/")]
    path: String,
    /// As if the client stood in this region
    #[arg(long, value_name = "REGION")]
    from: Option<String>,
    /// The gateway's admin port, host:port; default: that of the running `atoll up`, else 127.0.0.1:7071
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl Explain {
    /// Runs it.
    pub(crate) async fn run(self, globals: &Globals) -> Outcome {
        if !self.path.starts_with('/') {
            return Err(Failure::usage(format!("--path `{}`: a path begins with /", self.path)));
        }
        let admin = Ready::admin(globals, self.admin);
        let query =
            [("host", Some(self.host.as_str())), ("path", Some(self.path.as_str())), ("from", self.from.as_deref())];
        let answer = super::admin::get(&admin, "/gateway/explain", &query).await?;
        globals.output.show(&answer, || yaml(&answer).unwrap_or_else(|_| answer.to_string()))
    }
}
