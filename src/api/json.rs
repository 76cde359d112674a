//! What the operator's command prints as the API does: one object for one thing.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::history::{HOUR, down_to, region, total, up_to};
use crate::store::Uptime;
use crate::wire::time_text;

pub(crate) use super::monitoring::object as check;
pub(crate) use super::websites::object as site;

/// How much of a time a site was up, in all and by region; `name` where it has one, such as `24h`.
pub(crate) fn uptime_window(
    name: Option<&str>,
    from: Timestamp,
    to: Timestamp,
    regions: &[Uptime],
) -> Value {
    json!({
        "window": name,
        "from": time_text(down_to(from, HOUR)),
        "to": time_text(up_to(to, HOUR)),
        "total": total(regions),
        "regions": regions.iter().map(region).collect::<Vec<_>>(),
    })
}
