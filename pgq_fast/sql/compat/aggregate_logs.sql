-- Count the log entries that are in no statistics yet into buckets of a second.
--
-- Both halves see one snapshot: what is counted is what is marked. UPDATE re-checks a row that
-- another transaction marked meanwhile, a count does not, so two of these at once would count some
-- entries twice: workers take an advisory lock, and who does not get it leaves the work to the
-- other. The key is pgqueuer's, so both kinds of worker exclude each other.
WITH
turn AS MATERIALIZED (
    -- [locked
    SELECT pg_try_advisory_xact_lock(hashtext('{statistics_table}')) AS mine
    -- locked]
    -- [unlocked
    SELECT true AS mine
    -- unlocked]
),
counted AS (
    SELECT entrypoint, priority, status, date_trunc('sec', created) AS created, count(*) AS count
    FROM {queue_table_log}, turn
    WHERE NOT aggregated AND turn.mine
    GROUP BY entrypoint, priority, status, date_trunc('sec', created)
),
marked AS (
    UPDATE {queue_table_log} SET aggregated = true
    FROM turn
    WHERE NOT aggregated AND turn.mine
)
INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
SELECT count, created, entrypoint, priority, status FROM counted
ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
    DO UPDATE SET count = bucket.count + excluded.count
