//! Dynamic updates (RFC 2136): checked here, passed on to the hub, acknowledged once it has stored them and this replica has them.
//!
//! ```text
//!   UPDATE ── zone of that name ── allowed (address, key)? ── hub (stores, or says no) ── wait for the change ── NOERROR
//! ```
//!
//! In: the message without its TSIG. Out: a code, and why. Without the hub it is SERVFAIL. A replica changes nothing by itself.

use std::net::IpAddr;
use std::time::Duration;

use atoll_api::update;
use atoll_wire::follow::Line;
use atoll_wire::v1::{ZoneUpdate, ZoneUpdated};
use hickory_proto::op::ResponseCode;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::answer::{Ede, ede};
use crate::table::Table;
use crate::tsig::Session;

/// The hub's answer; it gives up by itself before.
const HUB: Duration = Duration::from_millis(3500);
/// From stored to known here.
const KNOWN: Duration = Duration::from_secs(2);

/// The outcome of one update.
pub(crate) type Outcome = (ResponseCode, Option<Ede>);

fn no(code: ResponseCode, info: u16, text: impl Into<String>) -> Outcome {
    (code, Some(Ede { code: info, text: text.into() }))
}

/// Carries an update out.
pub(crate) async fn carry_out(
    message: &[u8],
    ip: IpAddr,
    session: Option<&Session>,
    line: &Line,
    mut tables: watch::Receiver<std::sync::Arc<Table>>,
) -> Outcome {
    let asked = match checked(&tables.borrow(), message, ip, session) {
        Ok(asked) => asked,
        Err(outcome) => return outcome,
    };
    let ZoneUpdated { rcode, why, object, revision } = match line.update(asked, HUB).await {
        Ok(answer) => answer,
        Err(why) => return no(ResponseCode::ServFail, ede::NO_AUTHORITY, why),
    };
    let low = rcode.to_be_bytes()[3];
    if low != 0 {
        return no(ResponseCode::from(0, low), ede::OTHER, why);
    }
    // Whoever asks here next must find it.
    let has = |table: &std::sync::Arc<Table>| {
        revision == 0 || table.topology.records.get(&object).is_some_and(|held| held.revision >= revision)
    };
    match timeout(KNOWN, tables.wait_for(has)).await {
        Ok(Ok(_)) => (ResponseCode::NoError, None),
        _ => no(ResponseCode::ServFail, ede::NOT_READY, "stored, but not known here yet"),
    }
}

/// What is passed on, when this peer may update that zone.
fn checked(table: &Table, message: &[u8], ip: IpAddr, session: Option<&Session>) -> Result<ZoneUpdate, Outcome> {
    let sections = update::read(message).map_err(|refusal| no(refusal.code, ede::OTHER, refusal.why))?;
    let zone = table.zone_of(&sections.zone).filter(|zone| *zone.apex() == sections.zone);
    let object = zone.and_then(|zone| zone.object());
    let Some((name, facts)) = object.filter(|(_, facts)| !facts.spec.catalog) else {
        return Err(no(ResponseCode::NotAuth, ede::OTHER, format!("{} is no zone of ours", sections.zone)));
    };
    let key = session.map(Session::key).unwrap_or_default();
    let named = Some(key.as_str()).filter(|key| !key.is_empty());
    if !facts.spec.allow.update.iter().any(|peer| peer.admits(ip, named)) {
        return Err(no(ResponseCode::Refused, ede::PROHIBITED, "this client or key may not update the zone"));
    }
    Ok(ZoneUpdate {
        zone: name.clone(),
        message: message.to_vec().into(),
        key,
        client: ip.to_canonical().to_string(),
        mac: session.map(|session| session.mac().to_vec()).unwrap_or_default().into(),
    })
}
