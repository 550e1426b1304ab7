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
    let (copies, of) = match (settings.percent, &settings.fraction) {
        (Some(percent), _) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, None) => (100, 100),
    };
    let numbers = u32::try_from(copies).ok().and_then(|c| Some((c, u32::try_from(of).ok().filter(|of| *of > 0)?)));
    let (copies, of) = numbers.ok_or_else(|| refused("RequestMirror: the share is no share"))?;
    let upstream = resolve.resolve(&settings.backend_ref);
    Ok(upstream.map(|upstream| Box::new(Copies(Mirror { upstream, of, copies })) as Box<dyn Filter>))
}
