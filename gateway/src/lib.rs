//! The gateway: one entry in front of many clusters.

mod config;
mod error;
mod run;

pub use config::{Config, Limits, Resources};
pub use error::Error;
pub use run::{Server, run};
