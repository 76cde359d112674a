//! The REST API: what is asked over HTTP, and the answers as JSON.
//!
//! Invariants:
//! - Nothing that a client sends holds a thread for longer than a request's deadline, or takes more
//!   memory than the limits of head and body allow.
//! - Errors are problem details (RFC 9457); no answer shows a secret.
//! - The table of routes is what is served and what the OpenAPI document says.

mod access;
mod addresses;
mod body;
mod changes;
mod checking;
mod chunked;
mod connection;
mod cursor;
mod docs;
mod encode;
mod head;
mod history;
mod input;
pub(crate) mod json;
mod monitoring;
mod openapi;
mod pages;
mod pool;
mod query;
mod rate;
mod reader;
mod refusal;
mod request;
mod response;
mod routes;
mod schemas;
mod secrets;
mod server;
mod service;
mod site_schemas;
mod state;
mod websites;

pub use access::{AccessOptions, Token, hash_token, hex, make_token};
pub use head::{HEAD_MAX, HEADERS_MAX};
pub use request::{Caller, Method, Request, Role};
pub use response::{Problem, Response, reason};
pub use server::{Limits, serve};
pub use service::{Api, ApiOptions};

/// What answers requests; called by several threads at once.
pub trait Service: Send + Sync {
    /// The answer to `request`.
    fn respond(&self, request: &Request) -> Response;

    /// Whether the answer needs nothing but this process, and so must not wait behind those that
    /// may take long; a thread of its own gives it. Called by the thread that reads all requests.
    fn is_quick(&self, request: &Request) -> bool {
        let _ = request;
        false
    }
}
