//! A site as a request has it.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::service::Call;
use super::{Problem, secrets};
use crate::site::SiteSpec;
use crate::store::{SiteRow, SiteStatus};
use crate::wire::website::{self, Fault};

/// Keys of a site that webmon gives: what was read may be sent back with them.
pub(super) const READ_ONLY: [&str; 3] = ["website_id", "timestamp", "updated_at"];

/// What a request makes of a site.
pub(super) struct Wanted {
    pub(super) spec: SiteSpec,
    pub(super) status: Option<SiteStatus>,
}

/// The whole site in `body`, whose keys `ignored` count for nothing. `before`: what is replaced.
pub(super) fn whole(
    call: &Call<'_>,
    body: Map<String, Value>,
    before: Option<&SiteRow>,
    ignored: &[&str],
) -> Result<Wanted, Refusal> {
    let decode = |object| website::decode(object, before.map(|row| &row.spec));
    read(call, body, before, ignored, decode)
}

/// `before` with what `body` says.
pub(super) fn part(
    call: &Call<'_>,
    body: Map<String, Value>,
    before: &SiteRow,
) -> Result<Wanted, Refusal> {
    let patch = |object| website::patch(object, &before.spec);
    read(call, body, Some(before), &READ_ONLY, patch)
}

fn read(
    call: &Call<'_>,
    mut body: Map<String, Value>,
    before: Option<&SiteRow>,
    ignored: &[&str],
    decode: impl Fn(Map<String, Value>) -> Result<SiteSpec, Vec<Fault>>,
) -> Result<Wanted, Refusal> {
    let mut faults = Vec::new();
    if let (Some(row), Some(id)) = (before, body.get("website_id"))
        && !id.is_null()
        && id.as_i64() != Some(row.website_id)
    {
        let message =
            format!("is not {}, which the site has: no id can be changed", row.website_id);
        faults.push(Fault::new("website_id", message));
    }
    body.retain(|key, _| !ignored.contains(&key.as_str()));
    let status = match body.remove("status") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let known = value.as_str().and_then(SiteStatus::parse);
            let status = known.filter(|status| *status != SiteStatus::Deleted);
            if status.is_none() {
                faults.push(Fault::new("status", "must be active or paused"));
            }
            status
        }
    };
    let spec = spec(call, body.clone(), decode, &mut faults);
    match spec {
        Some(spec) if faults.is_empty() => {
            let caller = &call.request.caller;
            secrets::guard(caller, &body, before.map(|row| &row.spec), &spec)?;
            Ok(Wanted { spec, status })
        }
        _ => Err(Problem::invalid(faults).into()),
    }
}

/// Faults of types and of ranges together: what has the wrong type is left out for the second.
pub(super) fn spec(
    call: &Call<'_>,
    body: Map<String, Value>,
    decode: impl Fn(Map<String, Value>) -> Result<SiteSpec, Vec<Fault>>,
    faults: &mut Vec<Fault>,
) -> Option<SiteSpec> {
    let mut rest = body.clone();
    let (spec, of_types) = match decode(body) {
        Ok(spec) => (Some(spec), Vec::new()),
        Err(found) => {
            rest.retain(|key, _| !found.iter().any(|fault| fault.field == *key));
            (decode(rest).ok(), found)
        }
    };
    let of_ranges = spec.as_ref().map(|spec| spec.faults(call.api.options.defaults));
    let is_new = |fault: &Fault| !of_types.iter().any(|other| other.field == fault.field);
    let of_ranges: Vec<Fault> =
        of_ranges.unwrap_or_default().into_iter().map(Fault::from).filter(is_new).collect();
    faults.extend(of_types);
    faults.extend(of_ranges);
    spec.filter(|_| faults.is_empty())
}
