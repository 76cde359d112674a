//! The REST API.

#[path = "../support/mod.rs"]
mod support;

#[path = "support.rs"]
mod server;

mod websites;
