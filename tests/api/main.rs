//! The REST API, asked over HTTP as clients do.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

#[path = "../support/mod.rs"]
mod support;

#[path = "support.rs"]
mod server;

mod addresses;
mod changes;
mod history;
mod limits;
mod lists;
mod requests;
mod secrets;
mod state;
mod websites;
