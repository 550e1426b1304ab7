//! The gateway as others meet it: real loopback sockets, the embedded API server, real backends.

mod backend;
mod client;
mod world;

mod route;
