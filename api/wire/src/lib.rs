//! The messages between hub, agents and data planes, and their tonic stubs.
