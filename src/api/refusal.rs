//! Why a request has no good answer.

use super::{Problem, Response};
use crate::store::{ErrorKind, StoreError};
use crate::wire::website::Fault;

/// Seconds after which a database that is away is worth another try.
const AWAY_RETRY_S: u32 = 5;
/// The same for two transactions that were in each other's way.
const AGAIN_RETRY_S: u32 = 1;

/// What a handler gives.
pub(super) type Answer = Result<Response, Refusal>;

/// A problem, and what goes into the head of its answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    problem: Box<Problem>,
    headers: Vec<(&'static str, String)>,
    /// What the database said, if it is the reason; for the log.
    pub(super) cause: Option<Box<StoreError>>,
}

impl Refusal {
    /// With one more header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 422 with one fault.
    pub(super) fn of_field(field: &str, message: impl Into<String>) -> Self {
        Problem::invalid(vec![Fault::new(field, message)]).into()
    }

    pub(super) fn response(&self) -> Response {
        let response = self.problem.response();
        self.headers.iter().fold(response, |response, (name, value)| response.with(name, value))
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), headers: Vec::new(), cause: None }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let (detail, retry) = match error.kind() {
            ErrorKind::Data => {
                let detail = "the database has no place for a value of this request";
                return Problem::new(422, detail).into();
            }
            ErrorKind::Again => ("another change was in the way; try again", AGAIN_RETRY_S),
            ErrorKind::Outage => ("the database does not answer; try again later", AWAY_RETRY_S),
            ErrorKind::Configuration | ErrorKind::Migration => {
                ("the database can't be used; webmon's log says why", AWAY_RETRY_S)
            }
        };
        let cause = (error.kind() != ErrorKind::Again).then(|| Box::new(error));
        Self { cause, ..Problem::new(503, detail).into() }.with("Retry-After", retry.to_string())
    }
}
