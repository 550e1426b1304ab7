//! Filters of the gateway against servers that others wrote: dex, oauth2-proxy, Open Policy Agent with its Envoy plugin, and a processor in
//! go-control-plane's types. A running `atoll up` has them as backends of its own API; curl is the browser. Beside it pebble, which issues
//! certificates.
//!
//! The programs are Go modules that the testbed builds into its cache: `./check peers`.

#[path = "peers/authority.rs"]
mod authority;
#[path = "peers/certificates.rs"]
mod certificates;
#[path = "peers/judges.rs"]
mod judges;
#[path = "peers/logins.rs"]
mod logins;
#[path = "peers/shop.rs"]
mod shop;
#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "zones/stage.rs"]
mod stage;
#[expect(dead_code, reason = "each test program uses its part of it")]
#[path = "up/world.rs"]
mod world;
