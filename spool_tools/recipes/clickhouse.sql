-- ClickHouse as the receiver: one table, two ways in. For 25.3 and later.
--
--   format "clickhouse", endpoint https://HOST:8443/ (user and key as below):
--     INSERT INTO telemetry.events FORMAT JSONEachRow, an event a row
--   format "records", endpoint
--     https://HOST:8443/?query=INSERT+INTO+telemetry.inbox+FORMAT+JSONAsString
--     a whole body a row; header X-ClickHouse-Key
--
-- A 2xx has to mean that the events are stored. So nothing here inserts asynchronously:
-- async_insert=1 with wait_for_async_insert=0 answers first, and a restart loses the rows.
-- The same goes for a Buffer table and for a Kafka table in front.

CREATE DATABASE IF NOT EXISTS telemetry;

CREATE TABLE IF NOT EXISTS telemetry.events
(
    event           LowCardinality(String),
    event_timestamp UInt64 COMMENT 'milliseconds since 1970, by the clock of the user',
    source          LowCardinality(String) COMMENT 'the program',
    properties      JSON(event_id UUID, user_uuid String, version LowCardinality(String),
                         os LowCardinality(String)),
    event_id        UUID     DEFAULT properties.event_id,
    time            DateTime64(3, 'UTC')
                    MATERIALIZED fromUnixTimestamp64Milli(event_timestamp::Int64, 'UTC'),
    received        DateTime DEFAULT now(),
    CONSTRAINT has_id CHECK event_id != toUUID('00000000-0000-0000-0000-000000000000')
)
-- An event that arrives twice is one event: merges keep one row of each event_id, and
-- `FINAL` reads as if all were merged. The month is the event's own, so both copies are
-- in the same partition.
ENGINE = ReplacingMergeTree(received)
PARTITION BY toYYYYMM(fromUnixTimestamp64Milli(event_timestamp::Int64, 'UTC'))
ORDER BY (source, event, event_id)
-- A retried batch, known by its insert_deduplication_token, is not even written.
SETTINGS non_replicated_deduplication_window = 10000;

-- Null keeps nothing: the view below makes rows of a body while the INSERT waits, and if
-- it cannot, the INSERT fails. Without the check a body that holds no records, such as
-- the answer of a proxy, would be accepted and gone.
CREATE TABLE IF NOT EXISTS telemetry.inbox
(
    body String,
    CONSTRAINT has_records CHECK JSONType(body, 'records') = 'Array'
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.inbox_to_events TO telemetry.events AS
SELECT
    JSONExtractString(record, 'event')         AS event,
    JSONExtractUInt(record, 'event_timestamp') AS event_timestamp,
    JSONExtractString(record, 'source')        AS source,
    JSONExtractRaw(record, 'properties')::JSON(event_id UUID, user_uuid String,
        version LowCardinality(String), os LowCardinality(String)) AS properties,
    properties.event_id                        AS event_id
FROM (SELECT arrayJoin(JSONExtractArrayRaw(body, 'records')) AS record FROM telemetry.inbox);

-- What questions are asked of: each event once, under the names that they need.
CREATE VIEW IF NOT EXISTS telemetry.once AS
SELECT
    time, received, source, event, event_id,
    properties.user_uuid                            AS user,
    properties.version                              AS version,
    properties.os                                   AS os,
    properties.action.:String                       AS action,
    ifNull(properties.is_success.:Bool, true)       AS is_success,
    toFloat64OrNull(toString(properties.duration_ms)) AS duration_ms,
    properties.error.:String                        AS error,
    properties
FROM telemetry.events FINAL;

-- The user that programs insert as. Its password is their API key: it is in every copy of
-- the program, so it may insert, and nothing else.
--
--   CREATE USER telemetry IDENTIFIED BY 'a long random key'
--       SETTINGS async_insert = 0 READONLY, wait_end_of_query = 1;
--   GRANT INSERT ON telemetry.events TO telemetry;
--   GRANT INSERT ON telemetry.inbox TO telemetry;
