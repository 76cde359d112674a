-- The list of rejected messages, newest first, page by page; and those that retention removes.

CREATE INDEX rejected_message_time
    ON rejected_message (rejected_at, topic, "partition", "offset");
