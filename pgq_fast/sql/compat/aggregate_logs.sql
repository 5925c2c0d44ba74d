-- Count up to $3 of the log entries from $1 to $2 that are in no statistics yet into buckets of a
-- second, in the order of their times.
--
-- One row: how many were marked, and the time of the last that was found.
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
-- By the index on times, from where the last one ended. The index of entries that are not counted is
-- no choice, as it has them in no order, and all of them would be read each time: its condition is
-- written in other words. `fan` is as in claim.sql: sorting must look as dear as it can be.
next AS MATERIALIZED (
    SELECT entry.id, entry.created
    FROM {queue_table_log} AS entry
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE entry.created >= (SELECT $1::timestamptz) AND entry.created <= (SELECT $2::timestamptz)
        AND entry.aggregated::integer = 0 AND (SELECT mine FROM turn)
    ORDER BY entry.created
    LIMIT (SELECT $3::bigint)
),
marked AS (
    UPDATE {queue_table_log} SET aggregated = true
    WHERE id = ANY(ARRAY(SELECT id FROM next)) AND aggregated::integer = 0
    RETURNING entrypoint, priority, status, date_trunc('sec', created) AS created
),
counted AS (
    INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
    SELECT count(*), created, entrypoint, priority, status
    FROM marked
    GROUP BY created, entrypoint, priority, status
    -- The same order in all, so that two of these do not wait for each other's buckets.
    ORDER BY created, entrypoint, priority, status
    ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
        DO UPDATE SET count = bucket.count + excluded.count
)
SELECT (SELECT count(*) FROM marked) AS marked, max(created) AS last
FROM next
