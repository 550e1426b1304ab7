//! The messages between hub, agents and data planes, and their tonic stubs.
//!
//! `proto/atoll.proto` is the language; [`v1`] is generated from it at build time. [`delta`] converts a set of keyed
//! facts ([`atoll_api::facts`]) to and from its messages, [`follow`] keeps a local copy of the topology, [`kept`] is the form of the files that
//! outlive the hub, [`channel`] is the connection to it.
//! Nothing here decides anything: who may say what is the server's business, on the connection's certificate.

pub mod channel;
pub mod delta;
pub mod follow;
pub mod kept;

/// The generated messages and stubs of `proto/atoll.proto`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod v1 {
    tonic::include_proto!("atoll.v1");
}
