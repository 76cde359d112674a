//! One check against servers that do what servers do: right, wrong and malicious.

// clippy lets `#[test]` functions do so, but not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod certificates;
mod charsets;
mod connectivity;
mod dns;
mod expectations;
mod guarding;
mod heads;
mod limits;
mod patterns;
mod plain;
mod redirects;
mod requests;
mod retries;
mod support;
mod table;
mod table_bodies;
mod table_heads;
mod table_network;
mod table_tls;
mod tls;
mod trouble;
