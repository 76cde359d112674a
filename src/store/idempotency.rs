//! The table `idempotency_key`: a request that is sent again gets the answer of the first one.
//!
//! The work and its answer are one transaction, under a lock for the key. So a program that dies
//! in between leaves neither, and the next request does it all.

use jiff::SignedDuration;

use super::websites::{Created, create};
use super::{SiteStatus, Store, StoreError};
use crate::site::SiteSpec;

/// How long an answer is kept.
pub const IDEMPOTENCY_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Most expired answers that one request removes: bounds its time.
const REMOVED_MAX: i64 = 100;

/// What makes two requests the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is.
    pub client: String,
    /// The key.
    pub key: String,
    /// A hash of what is asked for.
    pub request: Vec<u8>,
}

/// An answer as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Status code.
    pub status: u16,
    /// Headers, as a JSON object of texts.
    pub headers: serde_json::Map<String, serde_json::Value>,
    /// The body.
    pub body: Vec<u8>,
}

/// What became of a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// It was done now.
    Done(Created),
    /// It was done before, with this answer.
    Before(KeptAnswer),
    /// The key belongs to another request.
    OtherRequest,
    /// The first request with the key is under way.
    UnderWay,
}

impl Store {
    /// [`Store::create_site`], unless it was done before for this key. `answer` makes of a site
    /// that was added what is kept; other outcomes are not.
    ///
    /// # Errors
    /// What the database said.
    pub fn create_site_once(
        &self,
        key: &IdempotencyKey,
        spec: &SiteSpec,
        status: SiteStatus,
        answer: impl FnOnce(&Created) -> Option<KeptAnswer> + Send + 'static,
    ) -> Result<Once, StoreError> {
        let (key, spec) = (key.clone(), spec.clone());
        self.inner.run("adding a site", move |client| {
            let mut transaction = client.transaction()?;
            let locked = transaction.query_one(
                "SELECT pg_try_advisory_xact_lock(hashtextextended($1 || E'\\n' || $2, 0))",
                &[&key.client, &key.key],
            )?;
            if !locked.try_get::<_, bool>(0)? {
                return Ok(Once::UnderWay);
            }
            let before = crate::runtime::wall() - IDEMPOTENCY_KEPT;
            transaction.execute(
                "DELETE FROM idempotency_key WHERE (client, key) IN ( \
                    SELECT client, key FROM idempotency_key WHERE created_at < $1 \
                    ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
                &[&before, &REMOVED_MAX],
            )?;
            let known = transaction.query_opt(
                "SELECT request, status, headers::text, body FROM idempotency_key \
                 WHERE client = $1 AND key = $2 AND created_at >= $3 AND status IS NOT NULL",
                &[&key.client, &key.key, &before],
            )?;
            if let Some(row) = known {
                if row.try_get::<_, Vec<u8>>(0)? != key.request {
                    return Ok(Once::OtherRequest);
                }
                let status = u16::try_from(row.try_get::<_, i32>(1)?).unwrap_or(500);
                let headers: Option<String> = row.try_get(2)?;
                let headers = headers.and_then(|text| serde_json::from_str(&text).ok());
                let body: Option<Vec<u8>> = row.try_get(3)?;
                return Ok(Once::Before(KeptAnswer {
                    status,
                    headers: headers.unwrap_or_default(),
                    body: body.unwrap_or_default(),
                }));
            }
            let created = create(&mut transaction, &spec, status)?;
            if let Some(answer) = answer(&created) {
                let headers = serde_json::Value::Object(answer.headers).to_string();
                transaction.execute(
                    "INSERT INTO idempotency_key (client, key, request, status, headers, body) \
                     VALUES ($1, $2, $3, $4, $5::text::jsonb, $6) ON CONFLICT (client, key) \
                     DO UPDATE SET request = EXCLUDED.request, status = EXCLUDED.status, \
                        headers = EXCLUDED.headers, body = EXCLUDED.body, created_at = now()",
                    &[
                        &key.client,
                        &key.key,
                        &key.request,
                        &i32::from(answer.status),
                        &headers,
                        &answer.body,
                    ],
                )?;
            }
            transaction.commit()?;
            Ok(Once::Done(created))
        })
    }
}
