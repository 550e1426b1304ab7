//! `RequestMirror`: sends a copy elsewhere and ignores the answer.

use atoll_api::kinds::gateway::HTTPRouteFilter;

use super::{Filter, Made, Mirror, Resolve, absent, refused};

#[derive(Debug)]
struct Copies(Mirror);

impl Filter for Copies {
    fn mirror(&self) -> Option<Mirror> {
        Some(self.0)
    }
}

pub(super) fn make(written: &HTTPRouteFilter, _: bool, resolve: &mut dyn Resolve) -> Made {
    let settings = written.request_mirror.as_ref().ok_or_else(|| absent("RequestMirror"))?;
    let part = |key: &str| settings.fraction.as_ref().and_then(|f| f[key].as_u64());
    let (copies, of) = match (settings.percent, part("numerator")) {
        (Some(percent), _) => (u64::try_from(percent).ok(), 100),
        (None, Some(numerator)) => (Some(numerator), part("denominator").unwrap_or(100)),
        (None, None) => (Some(100), 100),
    };
    let numbers = copies.and_then(|c| Some((u32::try_from(c).ok()?, u32::try_from(of).ok().filter(|of| *of > 0)?)));
    let (copies, of) = numbers.ok_or_else(|| refused("RequestMirror: the share is no share"))?;
    let upstream = resolve.resolve(&settings.backend_ref);
    Ok(upstream.map(|upstream| Box::new(Copies(Mirror { upstream, of, copies })) as Box<dyn Filter>))
}
