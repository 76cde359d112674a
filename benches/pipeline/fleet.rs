//! Many sites at 60 s: memory, how soon they begin, and how evenly.

use webmon::runtime::now;

use crate::peers;
use crate::process::{Snapshot, resident_mb};
use crate::report::{Plan, pause, row, say};
use crate::sites::{add, consume, lab, wait_for_sites};
use crate::support::daemon::Lab;
use crate::web::Nginx;

const INTERVAL: u32 = 60;
/// A producer may hold this without sites, and for each of them.
const GOAL_MB: f64 = 15.0;
const GOAL_SITE: f64 = 600.0;

pub(crate) fn fleet(plan: &Plan, nginx: &Nginx) {
    let mut memory: Vec<(u32, f64)> = Vec::new();
    for sites in plan.fleets.iter().copied() {
        say(&format!("producer, {sites} sites at {INTERVAL} s"));
        let lab = lab(plan, Some(nginx));
        add(&lab, nginx, "http", (1, sites), INTERVAL);
        let begin_ms = now().wall.as_millisecond();
        let producer = lab.start("producer", &[]);
        wait_for_sites(&producer, sites);
        pause(plan.fleet_seconds);
        let last = Snapshot::take(&producer);
        let (resident, peak) = resident_mb(producer.pid());
        producer.stop();
        memory.push((sites, resident));
        let peers = match sites {
            1_000 => peers::RESIDENT_1000,
            100_000 => peers::RESIDENT_100000,
            _ => "",
        };
        row(
            &format!("memory with {sites} sites at {INTERVAL} s"),
            &format!("{resident:.1} MB, most {peak:.1}"),
            &format!("{}/s", sites / INTERVAL),
            "",
            &format!("{:.1} MB", GOAL_MB + GOAL_SITE * f64::from(sites) / 1e6),
            peers,
        );
        if Some(&sites) == plan.fleets.last() {
            consume(&lab, &last);
            start(&lab, sites, begin_ms, last.wall_ms);
        }
    }
    if let [(few, least), .., (many, most)] = memory.as_slice() {
        let each = (most - least) * 1e6 / f64::from(many - few);
        let what = format!("… for each site from {few} to {many}");
        row(&what, &format!("{each:.0} B"), "", "", "600 B", peers::PER_SITE);
    }
}

/// When the checks began, by the rows, in seconds since the process was started.
fn start(lab: &Lab, sites: u32, begin_ms: i64, end_ms: i64) {
    let sql = "SELECT (1000 * extract(epoch FROM started_at))::bigint FROM check_entry
               WHERE started_at IS NOT NULL ORDER BY 1";
    let rows = lab.database.client().query(sql, &[]).expect("rows");
    let starts: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let first_ms = *starts.first().expect("a check");
    // Whole seconds from the first check on, a minute at most.
    let seconds = ((end_ms - first_ms) / 1000).clamp(1, 60) as usize;
    let mut counts = vec![0_u32; seconds];
    for ms in starts {
        if let Some(count) = counts.get_mut(((ms - first_ms) / 1000) as usize) {
            *count += 1;
        }
    }
    let rate = f64::from(sites) / f64::from(INTERVAL);
    let full = counts.iter().position(|count| f64::from(*count) >= 0.9 * rate);
    let since_start = |ms: i64| (ms - begin_ms) as f64 / 1000.0;
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    let what = format!("{sites} sites: first check after the process's start");
    let first = since_start(first_ms);
    row(&what, &format!("{first:.2} s"), "", "", "≤ 2 s", peers::FIRST_CHECK);
    let full = full.map_or_else(
        || "never".to_owned(),
        |second| format!("{:.2} s", since_start(first_ms + 1000 * second as i64)),
    );
    row("… first second at 90 % of the rate", &full, "", "", "≤ 2 s", peers::FULL_RATE);
    let figure = format!("{least} to {most}");
    let what = format!("… starts per second in the first {seconds} s");
    row(&what, &figure, &format!("{rate:.0}/s"), "", "even", "");
}
