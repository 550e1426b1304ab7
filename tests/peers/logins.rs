//! People log in: at dex by the filter `oidc`, and at dex by oauth2-proxy, which `ExternalAuth` of a route and `forwardAuth` ask.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::shop::Shop;
use crate::stage::free_port;
use crate::world::until;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn people_log_in_at_dex() -> Result<()> {
    let mut shop = Shop::open().await?;
    let issuer = shop.dex().await?;
    shop.apply(json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "login"},
        "stringData": {"client-secret": "client-secret", "cookie-key": "a key that is long enough to encrypt with"}}))
        .await?;
    shop.policy(json!([{"filter": "oidc", "issuer": issuer, "clientId": "atoll", "secretRef": {"name": "login"},
        "scopes": ["email"], "claimHeaders": [{"claim": "email", "header": "x-email"}]}]))
        .await?;
    let page = shop.until_login("/cart?item=7").await;
    let wrong = shop.log_in(&page, "guessed").await?;
    assert!(wrong.url.contains("/dex/") && !wrong.body.contains("GET /cart"), "{wrong:?}");
    let page = shop.log_in(&page, "secret").await?;
    assert_eq!((page.status, page.url.as_str()), (200, "http://shop.test/cart?item=7"), "{page:?}");
    assert!(page.body.to_lowercase().contains("x-email: anna@example.com"), "{page:?}");
    let again = shop.browse(&["/", "--max-redirs", "0", "--header", "x-email: root@example.com"]).await?;
    assert!(again.status == 200 && !again.body.contains("root@"), "who came is known, and is who dex says: {again:?}");
    shop.browse(&["/oauth2/logout"]).await?;
    let page = shop.browse(&["/cart"]).await?;
    assert!(page.url.contains("/dex/auth"), "{page:?}");
    shop.close().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs programs of the testbed's: ./check has a step for it"]
async fn oauth2_proxy_says_who_may_pass() -> Result<()> {
    let mut shop = Shop::open().await?;
    let issuer = shop.dex().await?;
    let port = free_port()?;
    let words = [
        format!("--http-address=127.0.0.1:{port}"),
        format!("--oidc-issuer-url={issuer}"),
        format!("--cookie-secret={}", "0123456789abcdef"),
        "--provider=oidc".to_owned(),
        "--client-id=atoll".to_owned(),
        "--client-secret=client-secret".to_owned(),
        "--email-domain=*".to_owned(),
        "--cookie-secure=false".to_owned(),
        "--reverse-proxy=true".to_owned(),
        "--trusted-proxy-ip=127.0.0.1".to_owned(),
        "--upstream=static://200".to_owned(),
        "--set-xauthrequest=true".to_owned(),
        "--skip-provider-button=true".to_owned(),
        "--redirect-url=http://shop.test/oauth2/callback".to_owned(),
        "--whitelist-domain=shop.test".to_owned(),
    ];
    let at = shop.start("oauth2-proxy", port, &words).await?;
    shop.service("oauth2-proxy", at, None).await?;
    let own =
        json!({"matches": [{"path": {"value": "/oauth2"}}], "backendRefs": [{"name": "oauth2-proxy", "port": 80}]});
    let asks = json!({"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP",
        "backendRef": {"name": "oauth2-proxy", "port": 80},
        "http": {"allowedHeaders": ["cookie", "accept"], "allowedResponseHeaders": ["x-auth-request-email"]}}});
    shop.route(json!([own, {"filters": [asks], "backendRefs": [{"name": "web", "port": 80}]}])).await?;
    let page = shop.until_login("/cart").await;
    let page = shop.log_in(&page, "secret").await?;
    assert_eq!((page.status, page.url.as_str()), (200, "http://shop.test/cart"), "{page:?}");
    assert!(page.body.to_lowercase().contains("x-auth-request-email: anna@example.com"), "{page:?}");

    // The same by the policy's filter, which asks at the path that is made for that.
    shop.route(json!([own, {"name": "web", "backendRefs": [{"name": "web", "port": 80}]}])).await?;
    let target =
        json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web", "sectionName": "web"});
    shop.apply(json!({"apiVersion": "atoll.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": "web"},
        "spec": {"targetRefs": [target], "filters": [{"filter": "forwardAuth", "authPath": "/oauth2/auth",
            "backendRef": {"name": "oauth2-proxy", "port": 80}, "allowedResponseHeaders": ["x-auth-request-user"],
            "signinUrl": "/oauth2/start"}]}}))
        .await?;
    until("the filter asks", async || {
        let page = shop.browse(&["/cart", "--header", "x-auth-request-user: root"]).await?;
        let body = page.body.to_lowercase();
        ensure!(
            page.status == 200 && body.contains("x-auth-request-user: ") && !body.contains("user: root"),
            "{page:?}"
        );
        Ok(())
    })
    .await;
    std::fs::remove_file(shop.stage.place.at("jar"))?;
    let page = shop.browse(&["/cart"]).await?;
    assert!(page.url.contains("/dex/auth/local"), "whoever is not known is sent to log in: {page:?}");
    let page = shop.log_in(&page, "secret").await?;
    assert_eq!((page.status, page.url.as_str()), (200, "http://shop.test/cart"), "and comes back: {page:?}");
    shop.close().await
}
