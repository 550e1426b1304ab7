//! The member agent: enroll, link, observe, apply, export, relay.
