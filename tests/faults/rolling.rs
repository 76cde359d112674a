//! A new release, one process after the other.

use crate::lab::{FaultLab, Plan, Who};
use crate::random::is_full;

/// Two producers and two consumers are stopped and started in turn, under load.
#[test]
fn a_rolling_restart_costs_nothing() {
    let plan = Plan { producers: 2, consumers: 2, ..Plan::new("rolling") };
    let mut lab = FaultLab::shared(plan);
    lab.start_all();
    let rounds = if is_full() { 5 } else { 1 };
    let mut restarts = 0;
    for _ in 0..rounds {
        for who in lab.everybody() {
            if let Who::Producer(_) = who {
                lab.wait_until_shared();
            }
            let log = lab.stop(who);
            let stopping = log.iter().any(|line| line.contains("\"stopping\""));
            assert!(stopping, "{who:?} heard of it: {log:?}");
            lab.start(who);
            match who {
                Who::Producer(_) => lab.wait_until_ready(who),
                Who::Consumer(_) => _ = lab.daemon(who).wait_for_log("group joined"),
            }
            restarts += 1;
        }
    }
    let injected = format!("{restarts} times SIGTERM and a new start, each ended with exit code 0");
    let verdict = lab.finish(400, "Rolling restart of two producers and two consumers", &injected);
    let gaps = (verdict.cut, verdict.orphaned, verdict.uncovered);
    assert_eq!(gaps, (0, 0, 0), "every site always had somebody: {verdict:?}");
}
