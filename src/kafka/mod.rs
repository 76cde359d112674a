//! Moves bytes through Apache Kafka: topics, publisher, fetcher, group member. Knows no sites.
//!
//! Invariants:
//! - A client talks to one broker only, lives on a thread of its own, and every call on it has a
//!   deadline ([`crate::runtime::BoundedCall`]): no caller waits for a frozen broker for longer.
//! - After an error a connection is never used again; the next call makes a new one.
//! - A commit carries the generation and the member id of the assignment whose records it
//!   belongs to: the coordinator refuses an older one, so that a member that lost its partitions
//!   can't move their offsets.
//! - What a broker's error code means for us is decided in one place, `errors::verdict`.
//! - The room logs changes of state and counts metrics; whether the process is healthy is for
//!   the caller to say.

mod assignor;
mod batch;
mod cluster;
mod commits;
mod connection;
mod coordinator;
mod decompress;
mod errors;
mod fetcher;
mod frames;
mod heartbeat;
pub mod inspect;
mod joining;
mod member;
mod membership;
mod options;
mod partitioner;
mod preflight;
mod publisher;
mod records;
mod shares;
pub mod topics;

pub use commits::{CommitError, Committer};
pub use errors::KafkaError;
pub use fetcher::{EARLIEST, FetchLimits, Fetched, FetchedRecord, Fetcher, Unread, UnreadRecord};
pub use member::{
    Assignment, Generation, GroupHandler, GroupOptions, Member, MemberHandle, MemberState,
};
pub use options::{Compression, KafkaOptions, SaslMechanism, SaslOptions, TlsFiles};
pub use partitioner::partition_for;
pub use publisher::{BATCH_BYTES, PublishError, Published, Publisher, Record};
pub use records::RECORD_MAX;
pub use topics::{Ensured, TopicSpec};
