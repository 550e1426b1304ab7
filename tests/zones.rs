//! The hub's own zones as others meet them: nsupdate, dig, delv, unbound, kdig, Knot, NSD and ExternalDNS against a running `atoll up`.
//!
//! The wall clock jumps in [`clock`], by libfaketime. Each test names the Debian package of the tool that it misses.

#[path = "zones/clock.rs"]
mod clock;
#[path = "zones/external.rs"]
mod external;
#[path = "zones/secondary.rs"]
mod secondary;
#[path = "zones/signing.rs"]
mod signing;
#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "zones/stage.rs"]
mod stage;
#[path = "zones/updating.rs"]
mod updating;
#[path = "zones/validating.rs"]
mod validating;
#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "up/world.rs"]
mod world;
