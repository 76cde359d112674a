//! What an operator sees of a running daemon: metrics, health, logs.
//!
//! One process has one set of metrics and one health record ([`metrics`], [`health`]): they
//! describe the process, whichever daemons run in it.

mod health;
pub mod listener;
pub mod logs;
mod metrics;
mod process;
mod request;

pub use health::{Health, health};
pub use metrics::{
    ByDaemonThread, ByFailure, ByLane, ByOutcome, ByPartition, ByReason, ByRequest, Counter,
    Described, Gauge, Metrics, Role, described, metrics, show_only, shown,
};
