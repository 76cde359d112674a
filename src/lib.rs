//! webmon: a website monitor. ARCHITECTURE.md is the map of these rooms; `tests/architecture.rs`
//! holds them to it.

pub mod api;
pub mod check;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod kafka;
pub mod probe;
pub mod producer;
pub mod runtime;
pub mod schedule;
pub mod site;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod wire;
