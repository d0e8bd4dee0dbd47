-- ClickHouse on several machines, where one is too small: what changes in `recipe clickhouse`.
--
-- It takes a cluster named `telemetry` in remote_servers, ClickHouse Keeper, and the macros
-- {shard} and {replica} on each server. Run it once, on any of them.

CREATE DATABASE IF NOT EXISTS telemetry ON CLUSTER telemetry;

-- Replicated: a block that was inserted under a token is known on every replica of its
-- shard, so a retry that reaches another replica is not written again.
CREATE TABLE IF NOT EXISTS telemetry.events_local ON CLUSTER telemetry
(
    event           LowCardinality(String),
    event_timestamp UInt64,
    source          LowCardinality(String),
    properties      JSON(event_id UUID, user_uuid String, version LowCardinality(String),
                         os LowCardinality(String)),
    event_id        UUID     DEFAULT properties.event_id,
    time            DateTime64(3, 'UTC')
                    MATERIALIZED fromUnixTimestamp64Milli(event_timestamp::Int64, 'UTC'),
    received        DateTime DEFAULT now(),
    CONSTRAINT has_id CHECK event_id != toUUID('00000000-0000-0000-0000-000000000000')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/telemetry/events', '{replica}', received)
PARTITION BY toYYYYMM(fromUnixTimestamp64Milli(event_timestamp::Int64, 'UTC'))
ORDER BY (source, event, event_id)
SETTINGS replicated_deduplication_window = 10000;

-- The shard is chosen by the event's id: both copies of an event meet on one shard, where
-- FINAL makes one of them.
CREATE TABLE IF NOT EXISTS telemetry.events ON CLUSTER telemetry AS telemetry.events_local
ENGINE = Distributed(telemetry, telemetry, events_local, cityHash64(event_id));

-- A Distributed table answers before the shards have the rows, unless it is told to wait;
-- and a shard before its replicas have them, unless a quorum is asked for.
--
--   CREATE USER telemetry ON CLUSTER telemetry IDENTIFIED BY 'a long random key'
--       SETTINGS distributed_foreground_insert = 1 READONLY, insert_quorum = 'auto',
--                async_insert = 0 READONLY, wait_end_of_query = 1;
--
-- Inbox, view and `once` are those of `recipe clickhouse`, each with ON CLUSTER telemetry.
