//! One check against servers that do what servers do: right, wrong and malicious.

// clippy lets `#[test]` functions do so, but not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod certificates;
mod charsets;
mod connectivity;
mod dns;
mod expectations;
mod families;
mod guarding;
mod heads;
mod kept;
mod limits;
mod patterns;
mod plain;
mod proxy;
mod redirects;
mod requests;
mod retries;
mod rules;
mod secrets;
mod settings;
mod support;
mod table;
mod table_bodies;
mod table_heads;
mod table_network;
mod table_tls;
mod tls;
mod trouble;
mod trust;
