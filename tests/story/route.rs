//! Route: a Gateway with HTTP and HTTPS, a route by host and path, backends that are services of the set.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair};

use crate::load::{get, get_tls};
use crate::objects::{self, HOST, NAMESPACE};
use crate::said::{same, until};
use crate::world::{World, becomes, condition, list, text, write};

const SOON: Duration = Duration::from_secs(60);

pub(crate) async fn tell(world: &World) -> Result<()> {
    world.scene("Route");
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
    let ca: PathBuf = write(&world.dir, "market.crt", &certificate.pem())?;
    world.apply(&objects::route(&certificate.pem(), &key.serialize_pem())).await?;
    becomes(world, "the Gateway is programmed", 60, ("gateway", NAMESPACE, "market"), |gateway| {
        for kind in ["Accepted", "Programmed"] {
            let (status, reason, message) = condition(gateway, kind);
            ensure!(status == "True", "{kind}={status} {reason}: {message}");
        }
        Ok(())
    })
    .await?;
    becomes(world, "the HTTPRoute is accepted", 60, ("httproute", NAMESPACE, "market"), |route| {
        let parents = list(route, "/status/parents");
        let conditions = parents.first().map(|parent| list(parent, "/conditions")).unwrap_or_default();
        for kind in ["Accepted", "ResolvedRefs"] {
            let found = conditions.iter().find(|one| one["type"] == kind).context(kind)?;
            ensure!(found["status"] == "True", "{kind}: {found}");
        }
        Ok(())
    })
    .await?;
    world.proves("Gateway and HTTPRoute are accepted, with their conditions");
    by_host_and_path(world, &ca).await
}

async fn by_host_and_path(world: &World, ca: &std::path::Path) -> Result<()> {
    let reply = until("the nearest cluster answers", SOON, async || {
        let reply = get(world.http, HOST, "/hello?a=b").await?;
        same("the cluster", &reply.cluster()?, &"prod-eu".to_owned())?;
        Ok(reply)
    })
    .await?;
    same("the path", &text(&reply.echo, "/path"), &"/hello?a=b")?;
    ensure!(text(&reply.echo, "/pod").starts_with("store-"), "which pod: {reply:?}");
    let secure = get_tls(world.https, HOST, "/hello", ca).await?;
    same("the cluster", &secure.cluster()?, &"prod-eu".to_owned())?;
    world.proves("curl by HTTP and HTTPS is answered by a pod of prod-eu, the nearest");
    until("dr's service behind its path", SOON, async || {
        same("the cluster", &get(world.http, HOST, "/spare/x").await?.cluster()?, &"dr".to_owned())
    })
    .await?;
    same("the cluster", &get_tls(world.https, HOST, "/spare", ca).await?.cluster()?, &"dr".to_owned())?;
    world.proves("another path goes to a service that runs in dr alone, through dr's agent");
    get(world.http, "nobody.example.com", "/").await?.status(404)?;
    world.proves("a host that nobody routes is 404");
    Ok(())
}
