//! Twenty thousand questions to Atoll, Knot, NSD and PowerDNS: no difference that nobody has reviewed. A million: `benches/differential/run`.

use atoll_differential::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs knot, nsd, pdns-server and pdns-backend-bind: ./check dns"]
async fn atoll_answers_what_knot_nsd_and_powerdns_answer() {
    let report = run(Plan { queries: 20_000, seed: 1 }).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(report.unreviewed == 0 && report.queries == 20_000, "\n{report}");
    assert!(report.same > 4000, "too little is alike to say anything:\n{report}");
}
