-- Count the log entries that are in no statistics yet into buckets of a second.
--
-- What is counted is what the UPDATE marked: it re-checks an entry that another transaction marks
-- meanwhile, so two of these at once count nothing twice. Workers take an advisory lock besides, and
-- who does not get it leaves the work to the other. The key is pgqueuer's, so both kinds of worker
-- exclude each other.
WITH
turn AS MATERIALIZED (
    -- [locked
    SELECT pg_try_advisory_xact_lock(hashtext('{statistics_table}')) AS mine
    -- locked]
    -- [unlocked
    SELECT true AS mine
    -- unlocked]
),
marked AS (
    UPDATE {queue_table_log} SET aggregated = true
    FROM turn
    WHERE NOT aggregated AND turn.mine
    RETURNING entrypoint, priority, status, date_trunc('sec', created) AS created
)
INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
SELECT count(*), created, entrypoint, priority, status
FROM marked
GROUP BY created, entrypoint, priority, status
-- The same order in all, so that two of these do not wait for each other's buckets.
ORDER BY created, entrypoint, priority, status
ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
    DO UPDATE SET count = bucket.count + excluded.count
