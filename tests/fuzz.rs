//! Fuzzing of everything that reads what others wrote: answers of servers, requests of clients,
//! messages, configuration.
//!
//! A short run with fixed inputs is part of `./test.sh`. `make fuzz` runs each target for longer,
//! with inputs that are new each time. A failing input is kept in a file, and the message says how
//! to run it again; what was once wrong goes into `tests/fuzz_corpus/`.
//!
//! | variable | |
//! |---|---|
//! | `WEBMON_TEST_FUZZ_SECONDS` | how long each target runs |
//! | `WEBMON_TEST_FUZZ_SEED` | the seed of a run, as it was printed |
//! | `WEBMON_TEST_FUZZ_INPUT` | a file: the one input to run |
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of tests too

#[path = "fuzz/configuration.rs"]
mod configuration;
#[path = "fuzz/messages.rs"]
mod messages;
#[path = "fuzz/mutator.rs"]
mod mutator;
#[path = "fuzz/requests.rs"]
mod requests;
#[path = "fuzz/responses.rs"]
mod responses;
#[path = "fuzz/runner.rs"]
mod runner;
