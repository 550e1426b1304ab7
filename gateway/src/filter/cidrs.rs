//! `deny` refuses the addresses that it lists, `allow` all that it does not list (403). Streams and packets are not taken.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use atoll_api::kinds::route_policy::filters::Cidrs;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::{Guard, Guarded, Making, Permit, parameters, said};
use crate::policy::Asked;
use crate::policy::ranges::Ranges;

#[derive(Debug)]
struct List {
    ranges: Ranges,
    /// Who is listed is refused; else who is not.
    denies: bool,
}

impl List {
    fn refuses(&self, client: IpAddr) -> bool {
        self.ranges.hold(client) == self.denies
    }
}

#[async_trait]
impl Guard for List {
    async fn request(&self, asked: &mut Asked<'_>) -> Option<Response<Bytes>> {
        self.refuses(asked.client()).then(|| said(StatusCode::FORBIDDEN, "this address may not come here"))
    }

    fn stream(&self, client: IpAddr) -> Result<Option<Permit>, &'static str> {
        if self.refuses(client) { Err("this address may not come here") } else { Ok(None) }
    }
}

fn make(written: &Map<String, Value>, denies: bool) -> Guarded {
    let settings: Cidrs = parameters(written)?;
    Ok(Arc::new(List { ranges: Ranges::parse(&settings.cidrs)?, denies }))
}

pub(super) fn deny(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    make(written, true)
}

pub(super) fn allow(written: &Map<String, Value>, _: &Making<'_>) -> Guarded {
    make(written, false)
}
