//! What an operator types to see how the pipeline is, and what is wrong with it: each fault is a
//! real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests too

#[path = "../support/broker.rs"]
mod broker;
mod doctor;
mod parts;
mod round_trip;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod topic;

use std::process::Output;

use serde_json::Value;
use support::daemon::{Daemon, Lab};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `webmon …`; its exit code must be this. What it said, on both channels.
fn run(lab: &Lab, args: &[&str], code: i32) -> String {
    let output = lab.run(args);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{said}");
    said
}

/// The JSON object that a command prints, whatever its exit code; and that.
fn json(lab: &Lab, args: &[&str]) -> (Value, Option<i32>) {
    let output: Output = lab.run(&[args, &["--json"]].concat());
    let value = serde_json::from_slice(&output.stdout);
    let value = value.unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", text(&output.stderr)));
    (value, output.status.code())
}

/// A lab whose commands look at nothing outside this machine.
fn quiet(mut lab: Lab) -> Lab {
    lab.set("WEBMON_MONITORING_CONNECTIVITY", "127.0.0.1:1");
    lab.set("WEBMON_API_LISTEN", "127.0.0.1:0");
    lab.config("websites: []\n");
    lab
}

/// Waits until a consumer of the lab has committed what it read: then its group is at rest.
fn consumer(lab: &Lab) -> Daemon {
    let consumer = lab.start("consumer", &[]);
    consumer.wait_for_log("group joined");
    consumer
}

/// Removes the sample sites, so that nothing outside is checked.
fn migrate(lab: &Lab) {
    run(lab, &["migrate"], 0);
    lab.database.client().batch_execute("DELETE FROM website").expect("no samples");
}
