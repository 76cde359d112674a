//! One broker, one client, one thread, a deadline on everything.

use std::sync::Arc;
use std::time::Duration;

use kafka::client::{Compression as Codec, KafkaClient, ProducerTimestamp, RetryPolicy};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::errors::{from_call, from_client};
use super::{Compression, KafkaError, KafkaOptions, preflight};
use crate::runtime::{self, BoundedCall, CallError};
use crate::telemetry::metrics;

/// For connect, TLS handshake and the broker's first answer together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What a call may take above the connection's read and write timeout before it is left behind:
/// the connect and handshake of the library, which the preflight has just seen work.
const SLACK: Duration = Duration::from_secs(2);

/// A connection unused for longer is not used again. Brokers close theirs after 10 minutes, the
/// library makes a new one after 9, without our preflight.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// The read and write timeout of produce, fetch and metadata.
pub(super) const DATA_TIMEOUT: Duration = Duration::from_secs(5);

/// The read and write timeout of heartbeats and commits: with a longer one a frozen coordinator
/// holds a heartbeat for that long.
pub(super) const GROUP_TIMEOUT: Duration = Duration::from_secs(3);

/// One broker as seen from one thread. Connects when first used, and again after an error.
#[derive(Debug)]
pub(super) struct Broker {
    options: Arc<KafkaOptions>,
    server: String,
    timeout: Duration,
    client: Option<BoundedCall<KafkaClient>>,
    last_used: Duration,
}

impl Broker {
    /// The broker at `server`; reads and writes on its connection take at most `timeout`
    /// (rounded up to whole seconds).
    pub(super) fn new(options: Arc<KafkaOptions>, server: String, timeout: Duration) -> Self {
        Self { options, server, timeout, client: None, last_used: Duration::ZERO }
    }

    /// Sends one request of version `version` and waits for its answer.
    pub(super) fn request<Q, P>(
        &mut self,
        operation: &'static str,
        key: ApiKey,
        version: i16,
        request: Q,
    ) -> Result<P, KafkaError>
    where
        Q: Encodable + HeaderVersion + Send + 'static,
        P: Decodable + HeaderVersion + Send + 'static,
    {
        self.call(operation, move |client| {
            client.send_raw_protocol_request::<Q, P>(key as i16, version, &request)
        })
    }

    /// Runs `work` with this broker's client. After any error the client is dropped.
    pub(super) fn call<R, F>(&mut self, operation: &'static str, work: F) -> Result<R, KafkaError>
    where
        R: Send + 'static,
        F: FnOnce(&mut KafkaClient) -> kafka::Result<R> + Send + 'static,
    {
        let mut client = match self.client.take() {
            Some(client) if self.idle() < IDLE_LIMIT => client,
            _ => self.connect()?,
        };
        let server = self.server.clone();
        let limit = self.timeout + SLACK;
        let answer = client
            .call(limit, move |client| {
                work(client).map_err(|error| from_client(&server, operation, &error))
            })
            .unwrap_or_else(|error| Err(self.left_behind(operation, error)))?;
        self.client = Some(client);
        self.last_used = runtime::now().mono;
        Ok(answer)
    }

    fn idle(&self) -> Duration {
        runtime::now().mono.saturating_sub(self.last_used)
    }

    fn connect(&mut self) -> Result<BoundedCall<KafkaClient>, KafkaError> {
        let (options, server, timeout) = (self.options.clone(), self.server.clone(), self.timeout);
        let mut client =
            BoundedCall::start("kafka-client", move || new_client(&options, server, timeout))
                .map_err(|error| from_call(&self.server, "connect", error))?;
        let (options, server) = (self.options.clone(), self.server.clone());
        client
            .call(CONNECT_LIMIT + SLACK, move |_| {
                preflight::check(&options, &server, CONNECT_LIMIT)
            })
            .unwrap_or_else(|error| Err(self.left_behind("connect", error)))?;
        Ok(client)
    }

    fn left_behind(&self, operation: &'static str, error: CallError) -> KafkaError {
        if error == CallError::Late {
            metrics().calls_left_behind.inc();
            log::warn!(server = self.server.as_str(), operation; "call left behind");
        }
        from_call(&self.server, operation, error)
    }
}

/// A client for one broker only: with several, it would replay a failed request on the next.
fn new_client(options: &KafkaOptions, server: String, timeout: Duration) -> KafkaClient {
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    let mut builder = KafkaClient::builder()
        .with_hosts(vec![server])
        .with_client_id(options.client_id.clone())
        .with_conn_rw_timeout(seconds)
        // The library's default timestamp is 1970, and retention deletes by it.
        .with_producer_timestamp(Some(ProducerTimestamp::CreateTime))
        .with_compression(match options.compression {
            Compression::None => Codec::NONE,
            Compression::Lz4 => Codec::LZ4,
            Compression::Zstd => Codec::ZSTD,
        })
        .with_retry_policy(RetryPolicy::None);
    if let Some(security) = options.security() {
        builder = builder.with_security(security);
    }
    builder.build()
}

/// A string of the protocol.
pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}
