//! The OpenAPI document and the page that shows it.

use super::body::JSON;
use super::refusal::Answer;
use super::service::Call;
use super::{Problem, Response};

/// `GET /openapi.json`.
pub(super) fn document(call: &Call<'_>) -> Answer {
    Ok(Response::new(200, JSON, call.api.document()))
}

/// `GET /docs`.
pub(super) fn page(_: &Call<'_>) -> Answer {
    Err(Problem::new(404, "the page is not there yet").into())
}

/// `GET /docs/{asset}`.
pub(super) fn asset(_: &Call<'_>) -> Answer {
    Err(Problem::new(404, "no such file").into())
}

/// `GET /`.
pub(super) fn home(_: &Call<'_>) -> Answer {
    Ok(Response::empty(302).with("Location", "/docs"))
}
