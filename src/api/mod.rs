//! The REST API: what is asked over HTTP, and the answers as JSON.
//!
//! Invariants:
//! - Nothing that a client sends holds a thread for longer than a request's deadline, or takes more
//!   memory than the limits of head and body allow.
//! - Errors are problem details (RFC 9457); no answer shows a secret.
//! - The table of routes is what is served and what the OpenAPI document says.

mod addresses;
mod body;
mod changes;
mod checking;
mod cursor;
mod docs;
mod history;
mod input;
mod monitoring;
mod openapi;
mod query;
mod refusal;
mod request;
mod response;
mod routes;
mod schemas;
mod service;
mod state;
mod websites;

pub use request::{Caller, Method, Request, Role};
pub use response::{Problem, Response, reason};
pub use service::{Api, ApiOptions};

/// What answers requests; called by several threads at once.
pub trait Service: Send + Sync {
    /// The answer to `request`.
    fn respond(&self, request: &Request) -> Response;
}
