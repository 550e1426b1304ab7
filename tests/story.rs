//! The story of the whole, told with `kubectl`, `dig` and `curl` as people would: join, know, name, place, route, copy, fail over,
//! survive. The same scenes in three worlds: on the demo members of `atoll up`, and on the testbed's real clusters with the hub
//! on the embedded store and on a real API server.
//!
//! ```text
//!   world (demo | bed) ─► scenes, in order ─► end of the world, failed or not
//! ```
//!
//! `ATOLL_BIN` names the binary. What is missing makes it fail, never skip. Run one: `cargo test --test story -- --exact demo
//! --nocapture`; `./check` runs all.
#![allow(clippy::print_stdout, reason = "a story is told on the standard output")]

#[path = "story/bed.rs"]
mod bed;
#[path = "story/chart.rs"]
mod chart;
#[path = "story/copy.rs"]
mod copy;
#[path = "story/demo.rs"]
mod demo;
#[path = "story/dig.rs"]
mod dig;
#[path = "story/failover.rs"]
mod failover;
#[path = "story/join.rs"]
mod join;
#[path = "story/know.rs"]
mod know;
#[path = "story/kubectl.rs"]
mod kubectl;
#[path = "story/load.rs"]
mod load;
#[path = "story/name.rs"]
mod name;
#[path = "story/objects.rs"]
mod objects;
#[path = "story/place.rs"]
mod place;
#[path = "story/process.rs"]
mod process;
#[path = "story/route.rs"]
mod route;
#[path = "story/said.rs"]
mod said;
#[path = "hub/stamps.rs"]
mod stamps;
#[path = "story/survive.rs"]
mod survive;
#[path = "story/world.rs"]
mod world;

use std::panic::AssertUnwindSafe;

use anyhow::{Result, anyhow};
use futures::FutureExt as _;
use world::World;

#[tokio::test]
async fn demo() {
    run(demo::begin().await).await;
}

#[tokio::test]
async fn testbed_embedded() {
    run(bed::begin(bed::Store::Embedded).await).await;
}

#[tokio::test]
async fn testbed_kubernetes() {
    run(bed::begin(bed::Store::Kubernetes).await).await;
}

/// Tells it, and takes the world away whatever came of it.
async fn run(world: Result<World>) {
    let world = world.unwrap_or_else(|error| panic!("the world did not begin: {error:#}"));
    let told = AssertUnwindSafe(tell(&world)).catch_unwind().await;
    let told = told.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(anyhow!("{}", text.or(panic.downcast_ref::<&str>().map(|&t| t.to_owned())).unwrap_or_default()))
    });
    if let Err(error) = &told {
        println!("\n!!! {}: {error:#}\n", world.name);
        world.last_words();
    }
    let ended = world.end().await;
    if let Err(error) = told {
        panic!("{error:#}");
    }
    ended.unwrap_or_else(|error| panic!("the world did not end well: {error:#}"));
}

async fn tell(world: &World) -> Result<()> {
    join::tell(world).await?;
    know::tell(world).await?;
    kubectl::tell(world).await?;
    place::tell(world).await?;
    name::tell(world).await?;
    route::tell(world).await?;
    copy::tell(world).await?;
    failover::tell(world).await?;
    survive::tell(world).await?;
    println!("\n{}: the story is told, {} things proved in {:.0?}", world.name, world.proved(), world.age());
    Ok(())
}
