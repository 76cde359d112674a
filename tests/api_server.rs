//! The API's HTTP server over real sockets: limits, deadlines, who may use it, and what it does
//! with clients that mean no good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests too

#[path = "api_server/access.rs"]
mod access;
#[path = "api_server/commands.rs"]
mod commands;
#[path = "api_server/crowds.rs"]
mod crowds;
#[path = "api_server/lab.rs"]
mod lab;
#[path = "api_server/requests.rs"]
mod requests;
#[path = "api_server/slow.rs"]
mod slow;
