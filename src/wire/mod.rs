//! The message: one check as JSON, version 1, as `docs/message.schema.json` describes it. Pure.
//!
//! Invariants:
//! - What [`encode`] writes of a check within the limits below, [`decode`] reads back as the same
//!   check (times to the millisecond, seconds to the microsecond).
//! - What [`decode`] returns fits the tables: no text has a NUL, every number is in its column's
//!   range, every text and list within its limit, and the id belongs to the due time.
//! - Readers ignore fields they don't know, so that fields can be added without a new version. A
//!   field that is known may be `null` where it may be absent.
//!
//! Domain types carry no serde: the names on the wire stand here, and only here.

mod decode;
mod encode;
mod error;
mod headers;
pub mod masks;
mod object;
pub mod settings;
pub mod site_list;
mod time;
pub mod website;

pub use decode::decode;
pub use encode::encode;
pub use error::DecodeError;
pub use time::{parse as parse_time, text as time_text};

/// The version this room writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Longest URL in a message, in bytes: four times what a site may have, for other writers.
pub const URL_MAX: usize = 8 * 1024;
/// Longest `http_version`, in bytes.
pub const HTTP_VERSION_MAX: usize = 16;
/// Longest `remote_address`, in bytes: an IPv6 address with zone and port has room.
pub const ADDRESS_MAX: usize = 128;
/// Longest time in a message, in seconds; ten times the longest interval.
pub const SECONDS_MAX: f64 = 1e6;
/// Most redirects in a message.
pub const REDIRECTS_MAX: u16 = 1000;
/// Most body bytes in a message: the column is a signed 32-bit integer.
pub const BODY_BYTES_MAX: u32 = i32::MAX.unsigned_abs();
