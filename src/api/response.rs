//! An answer, and the problem that an answer may be.

use serde_json::{Map, Value, json};

use crate::wire::website::Fault;

/// An answer. The server adds `Content-Length`, `Date`, the security headers and what concerns the
/// connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Further headers; `Content-Type` among them where there is a body.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// With a body of that type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type", content_type.to_owned())];
        Self { status, headers, body: body.into() }
    }

    /// With JSON.
    #[must_use]
    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Problem details (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Status code.
    pub status: u16,
    /// What is wrong with this request, and what would be right.
    pub detail: String,
    /// Faults by field, of a 422.
    pub errors: Vec<Fault>,
}

impl Problem {
    /// A problem of that status.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new() }
    }

    /// 422 with every fault.
    #[must_use]
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let detail = match errors.len() {
            1 => "1 field is not valid".to_owned(),
            count => format!("{count} fields are not valid"),
        };
        Self { status: 422, detail, errors }
    }

    /// The answer.
    #[must_use]
    pub fn response(&self) -> Response {
        let mut body = Map::new();
        body.insert("type".to_owned(), Value::from("about:blank"));
        body.insert("title".to_owned(), Value::from(reason(self.status)));
        body.insert("status".to_owned(), Value::from(self.status));
        body.insert("detail".to_owned(), Value::from(self.detail.as_str()));
        if !self.errors.is_empty() {
            let error = |e: &Fault| json!({ "field": e.field, "message": e.message });
            body.insert("errors".to_owned(), self.errors.iter().map(error).collect());
        }
        let body = Value::Object(body).to_string();
        Response::new(self.status, "application/problem+json", body)
    }
}

/// The standard's words for a status code.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
