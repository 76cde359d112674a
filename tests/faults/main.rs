//! The table of faults: what is lost, doubled or invented when producers, consumers, brokers and
//! databases die, hang and come back. Short by default; `make faults` runs it at length and writes
//! docs/faults.md.

// Helpers that other tests share are not all used here, and the broker's bring their own ports.
#![allow(dead_code, clippy::duplicate_mod)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/broker.rs"]
mod broker;
mod history;
mod lab;
mod oracle;
mod oracle_tests;
mod own;
mod random;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod wires;
mod witness;

mod clock;
mod kills;
mod machine;
mod network;
mod outages;
mod rolling;
mod services;
