//! What a check costs at a given rate, and the highest rate.

use crate::peers;
use crate::process::{Span, resident_mb};
use crate::report::{Plan, pause, row, say};
use crate::sites::{INTERVAL, Lateness, add, lab, lateness, wait_for_sites, wait_until_warm};
use crate::web::Nginx;

/// Rate at which the search for the highest one begins, in checks per second.
const RATE_FIRST: u32 = 2000;
/// Nothing on two cores comes here.
const RATE_MAX: u32 = 60_000;
/// Seconds after a change of the number of sites until the rate counts: two rounds.
const SETTLE: u64 = 2 * INTERVAL as u64;

/// The producer without anything to do.
pub(crate) fn idle(plan: &Plan) {
    say("producer without sites");
    let lab = lab(plan, None);
    let producer = lab.start("producer", &[]);
    producer.address();
    pause(3);
    let span = Span::measure(&producer, plan.seconds);
    let figure = format!("{:.0} µs a second", span.cpu_us() / span.seconds());
    row("producer without sites", &figure, "", "", "", "");
    let (resident, _) = resident_mb(producer.pid());
    row("… memory", &format!("{resident:.1} MB"), "", "", "", "");
    producer.stop();
}

/// CPU per check at 200/s and at 2,000/s, with lateness and memory.
pub(crate) fn cost(plan: &Plan, nginx: &Nginx, scheme: &str) {
    let before = nginx.wrk(scheme);
    let few = at_rate(plan, nginx, scheme, 200);
    let many = at_rate(plan, nginx, scheme, 2000);
    let after = nginx.wrk(scheme);
    // The machine may be busier in one of the two.
    let (wrk, rate) = ((before.0 + after.0) / 2.0, (before.1 + after.1) / 2.0);
    let figure = format!("{wrk:.1} µs ({:.1}, {:.1})", before.0, after.0);
    let what = format!("wrk, {scheme}, `Connection: close`, before and after");
    row(&what, &figure, &format!("{rate:.0}/s"), "1", "", "");
    let is_https = scheme == "https";
    let (goals, peers) = if is_https {
        (["≤ 350 µs", "≤ 200 µs"], [peers::HTTPS_200, peers::HTTPS_2000])
    } else {
        (["≤ 100 µs", "≤ 55 µs"], [peers::HTTP_200, peers::HTTP_2000])
    };
    few.print(wrk, goals[0], peers[0]);
    few.print_lateness("p99 < 3 ms", peers::LATENESS);
    row("… memory", &format!("{:.1} MB", few.resident), "", "", "", peers::RESIDENT_1000);
    many.print(wrk, goals[1], peers[1]);
    many.print_lateness("", "");
}

/// One measurement at one rate.
struct Cost {
    what: String,
    cpu_us: f64,
    rate: f64,
    resident: f64,
    lateness: Lateness,
}

impl Cost {
    fn print(&self, wrk: f64, goal: &str, peers: &str) {
        let figure = format!("{:.1} µs", self.cpu_us);
        let ratio = format!("{:.1}", self.cpu_us / wrk);
        row(&self.what, &figure, &format!("{:.0}/s", self.rate), &ratio, goal, peers);
    }

    fn print_lateness(&self, goal: &str, peers: &str) {
        let Lateness { p50, p99, max, missed } = self.lateness;
        let figure = format!("{p50:.0} / {p99:.0} / {max:.0} ms, {missed} missed");
        row("… lateness p50 / p99 / max", &figure, "", "", goal, peers);
    }
}

fn at_rate(plan: &Plan, nginx: &Nginx, scheme: &str, rate: u32) -> Cost {
    let sites = rate * INTERVAL;
    say(&format!("producer, {scheme}, {sites} sites, {rate} checks/s"));
    let lab = lab(plan, Some(nginx));
    add(&lab, nginx, scheme, (1, sites), INTERVAL);
    let producer = lab.start("producer", &[]);
    wait_until_warm(&producer, sites);
    let span = Span::measure(&producer, plan.seconds);
    let (resident, _) = resident_mb(producer.pid());
    let checks = span.checks();
    let failed = span.grown("webmon_check_failures_total");
    assert!(failed < checks / 100.0, "{failed} of {checks} checks failed: {}", span.end.text);
    producer.stop();
    Cost {
        what: format!("{scheme}, {sites} sites, {rate} checks/s"),
        cpu_us: span.cpu_us() / checks,
        rate: checks / span.seconds(),
        resident,
        lateness: lateness(&lab, &span),
    }
}

/// The most checks per second before lateness p99 passes 100 ms, checks are missed, or the spool
/// grows because publishing can't follow.
pub(crate) fn highest(plan: &Plan, nginx: &Nginx) {
    let lab = lab(plan, Some(nginx));
    let producer = lab.start("producer", &[]);
    let mut sites = 0;
    let mut is_good = |rate: u32| {
        let wanted = rate * INTERVAL;
        if wanted > sites {
            add(&lab, nginx, "http", (sites + 1, wanted), INTERVAL);
        } else {
            // Names are `s` and the number, whatever ids earlier sites had.
            let sql = format!("DELETE FROM website WHERE substr(name, 2)::int > {wanted}");
            lab.database.client().batch_execute(&sql).expect("sites are removed");
        }
        sites = wanted;
        wait_for_sites(&producer, sites);
        pause(SETTLE);
        let span = Span::measure(&producer, plan.seconds / 2);
        let checks = span.checks();
        let lost = span.missed() + span.grown("webmon_checks_unrecorded_total");
        let failed = span.grown("webmon_check_failures_total");
        let published = span.grown("webmon_published_total");
        let within = span.within_100_ms();
        let is_good = within >= 0.99 && lost == 0.0 && failed == 0.0 && published >= 0.95 * checks;
        say(&format!(
            "highest rate: {rate}/s with {sites} sites is {}: {:.0}/s, {:.2} % within 100 ms, \
             {lost} missed, {failed} failed, {published} of {checks} published, {:.1} µs",
            if is_good { "good" } else { "too much" },
            checks / span.seconds(),
            100.0 * within,
            span.cpu_us() / checks,
        ));
        is_good
    };
    let (mut good, mut bad) = (0, RATE_FIRST);
    while bad < RATE_MAX && is_good(bad) {
        (good, bad) = (bad, bad * 3 / 2);
    }
    // To 5 %; that is finer than two runs on a shared machine agree.
    while bad - good > (bad / 20).max(50) {
        let rate = u32::midpoint(good, bad);
        if is_good(rate) { good = rate } else { bad = rate }
    }
    producer.stop();
    row(
        &format!("highest http rate, {} threads, nginx on the same cores", plan.threads),
        &format!("{good}/s"),
        &format!("{} sites", good * INTERVAL),
        "",
        "15,000/s",
        peers::HIGHEST,
    );
    if good > 0 {
        let wrk = nginx.wrk("http");
        let half = at_rate(plan, nginx, "http", good / 2);
        half.print(wrk.0, "", "");
        half.print_lateness("", "");
    }
}
