//! The hub whole: a real hub on the embedded API server, real agents over mutual TLS, demo members. Everything on loopback.

#![allow(clippy::unwrap_used)]

mod console;
mod image;
mod join;
mod know;
mod noise;
mod place;
mod push;
mod shown;
mod stamps;
mod survive;
mod world;
