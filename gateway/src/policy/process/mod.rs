//! Processors that look at whole requests and answers: `envoy.service.ext_proc.v3`.
//!
//! [`message`] is what is said, [`call`] one stream of it, [`body`] a body that passes through it.

pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod message;
