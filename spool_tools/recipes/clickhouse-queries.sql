-- Ten questions that the owner of a program asks, for the schema of `recipe clickhouse`.
-- Each reads `telemetry.once`: an event counts once, however often it arrived.

-- How many people use it, week by week?
SELECT toMonday(time) AS week, uniqExact(user) AS users, count() AS events
FROM telemetry.once GROUP BY week ORDER BY week;

-- Which commands fail most?
SELECT action, count() AS runs, countIf(NOT is_success) AS failures,
       round(failures / runs, 3) AS failure_rate, uniqExact(user) AS users
FROM telemetry.once WHERE event = 'command'
GROUP BY action ORDER BY failure_rate DESC, runs DESC LIMIT 50;

-- Which versions are in use? A person counts for the newest version he ran.
SELECT version, count() AS users
FROM (SELECT user, argMax(version, time) AS version FROM telemetry.once GROUP BY user)
GROUP BY version ORDER BY users DESC, version;

-- How long does it take until something works for the first time?
SELECT count() AS users, countIf(successes > 0) AS succeeded,
       medianIf(dateDiff('second', began, worked), successes > 0) AS median_s
FROM
(
    SELECT user, min(time) AS began, minIf(time, is_success) AS worked,
           countIf(is_success) AS successes
    FROM telemetry.once WHERE event = 'command' GROUP BY user
);

-- Who comes back? Of those first seen in a week, how many were there in the weeks after.
SELECT toMonday(first) AS joined, dateDiff('week', toMonday(first), toMonday(time)) AS weeks_later,
       uniqExact(user) AS users
FROM telemetry.once
INNER JOIN (SELECT user, min(time) AS first FROM telemetry.once GROUP BY user) AS people USING user
GROUP BY joined, weeks_later ORDER BY joined, weeks_later;

-- Which commands matter to most people?
SELECT action, uniqExact(user) AS users, count() AS runs
FROM telemetry.once WHERE event = 'command'
GROUP BY action ORDER BY users DESC, runs DESC LIMIT 50;

-- What is slow?
SELECT action, count() AS runs, round(quantile(0.5)(duration_ms)) AS p50_ms,
       round(quantile(0.95)(duration_ms)) AS p95_ms
FROM telemetry.once WHERE event = 'command' AND duration_ms IS NOT NULL
GROUP BY action ORDER BY p95_ms DESC LIMIT 50;

-- Which errors came with the newest version?
SELECT action, error, count() AS times, uniqExact(user) AS users
FROM telemetry.once
WHERE error != '' AND version = (SELECT argMax(version, time) FROM telemetry.once)
  AND (action, error) NOT IN
  (
      SELECT action, error FROM telemetry.once
      WHERE error != '' AND version != (SELECT argMax(version, time) FROM telemetry.once)
  )
GROUP BY action, error ORDER BY times DESC LIMIT 50;

-- Where does it run?
SELECT os, toString(properties.python) AS python, toString(properties.ci) AS ci,
       uniqExact(user) AS users
FROM telemetry.once GROUP BY os, python, ci ORDER BY users DESC, os LIMIT 50;

-- How late does it arrive? A person offline for a week is no loss.
SELECT quantile(0.5)(late_s) AS p50_s, quantile(0.99)(late_s) AS p99_s, max(late_s) AS longest_s
FROM (SELECT dateDiff('second', time, received) AS late_s FROM telemetry.once);
