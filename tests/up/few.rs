//! `atoll up` with other members than the five: whatever it offers to paste works all the same.

use anyhow::{Result, ensure};
use hickory_proto::op::ResponseCode;

use crate::world::{FREE, Place, until};
use crate::{SHOP, WEB, answered_by, install_provider};

#[tokio::test(flavor = "multi_thread")]
async fn members_of_which_none_is_in_prod_are_served_to_whoever_asks() -> Result<()> {
    install_provider();
    let place = Place::new()?;
    let config = place.file("up.yaml", FREE)?;
    let up = place.up(&["--config", &config.display().to_string(), "--members", "edge,dev"]).await?;
    for name in [WEB, "web.shop.svc.edge.atoll.internal.", "web.shop.svc.dev.atoll.internal.", &format!("{SHOP}.")] {
        until(name, async || {
            let answer = up.dig(name).await?;
            ensure!(answer.0 == ResponseCode::NoError && !answer.1.is_empty(), "{answer:?}");
            Ok(())
        })
        .await;
    }
    answered_by(&up, "edge").await;
    assert_eq!(up.interrupt().await?, Some(0));
    assert!(!place.home().exists());
    Ok(())
}
