-- Messages of the topic that can't become rows, kept as they came.

CREATE TABLE rejected_message (
    topic       text NOT NULL,
    "partition" integer NOT NULL,
    "offset"    bigint NOT NULL,
    reason      text NOT NULL,
    payload     bytea NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, "partition", "offset")
);
