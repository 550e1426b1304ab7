//! Accept and connect traits, and the dialer: directly or by way of an agent.
