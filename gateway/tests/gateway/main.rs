//! The gateway as others meet it: real loopback sockets, the embedded API server, real backends.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod backend;
mod client;
mod processor;
mod world;

mod bad_input;
mod bad_objects;
mod balance;
mod balancers;
mod bodies;
mod capacity;
mod client_address;
mod doors;
mod early;
mod failover;
mod failures;
mod filters;
mod fleets;
mod fronts;
mod health;
mod ingress;
mod ingress_more;
mod ingress_tls;
mod l4;
mod long;
mod modes;
mod names;
mod policies;
mod policy_auth;
mod policy_bodies;
mod policy_cache;
mod policy_filters;
mod policy_login;
mod policy_process;
mod policy_rate;
mod policy_streams;
mod ports;
mod provided;
mod providers;
mod proxied;
mod refusals;
mod relay;
mod route;
mod seen;
mod shadow;
mod silence;
mod slow;
mod smuggling;
mod status;
mod subsets;
mod survive;
mod tls;
mod websocket;
