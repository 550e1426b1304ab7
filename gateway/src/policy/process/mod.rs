//! Processors that look at whole requests and answers: `envoy.service.ext_proc.v3`.
//!
//! [`message`] is what is said, [`attributes`] what goes beside it, [`mod@line`] one stream of it, [`call`] what both ways of a request say there.
//! [`body`] is a body that passes piece by piece, [`duplex`] one whose pieces come and go on their own.

pub(crate) mod attributes;
pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod duplex;
mod line;
pub(crate) mod message;
