//! `make bench`: what a check and a row cost, beside a reference taken in the same run.
//!
//! - Producer: the daemon's whole CPU time per check (schedule, probe, spool, publishing) with nginx
//!   and a 20 KB page, beside wrk's CPU time per request; the highest rate; lateness; memory; how
//!   soon and how evenly many sites begin.
//! - Consumer: rows per second and CPU time per row from a full topic, beside `psql \copy` of the
//!   same rows into the same table.
//! - History: how fast checks are counted, and how soon questions about a site's past are answered.
//! - API: how soon requests are answered with 100,000 sites and the rows of history.
//!
//! CPU times are the kernel's, in ticks of 10 ms; each run is long enough for two digits. Prints a
//! table in Markdown; decides nothing.

// A bench is a program for a person at a terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod api;
mod consumer;
mod fleet;
mod history;
mod peers;
mod process;
mod producer;
mod report;
mod sites;
#[path = "../../tests/support/mod.rs"]
mod support;
mod web;

fn main() {
    // `cargo test --benches` must not start a measurement.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let plan = match report::Plan::read() {
        Ok(plan) => plan,
        Err(fault) => {
            eprintln!("{fault}");
            std::process::exit(2);
        }
    };
    let (past, parts): (Vec<&str>, Vec<&str>) =
        plan.parts.iter().partition(|part| ["history", "api"].contains(part));
    if !parts.is_empty() {
        table(&plan, &parts);
    }
    if !past.is_empty() {
        history::history(&plan, &past);
    }
}

/// The parts that share a table.
fn table(plan: &report::Plan, parts: &[&str]) {
    let nginx = web::Nginx::start();
    println!(
        "{} s a measurement; the producer's threads: {} in the fast lane, the default of others.\n",
        plan.seconds, plan.threads
    );
    report::head();
    for part in parts {
        match *part {
            "idle" => producer::idle(plan),
            "http" => producer::cost(plan, &nginx, "http"),
            "https" => producer::cost(plan, &nginx, "https"),
            "highest" => producer::highest(plan, &nginx),
            "fleet" => fleet::fleet(plan, &nginx),
            _ => consumer::consumer(plan.rows),
        }
    }
}
