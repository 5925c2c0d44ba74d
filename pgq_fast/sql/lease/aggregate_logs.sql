-- Count the log entries that are in no statistics yet into buckets of a second, and delete those
-- that were written for no other purpose. See compat/aggregate_logs.sql for why nothing is counted
-- twice.
WITH
turn AS MATERIALIZED (
    -- [locked
    SELECT pg_try_advisory_xact_lock(hashtext('{statistics_table}')) AS mine
    -- locked]
    -- [unlocked
    SELECT true AS mine
    -- unlocked]
),
entry AS (
    UPDATE {log_entries_table} SET aggregated = true
    FROM turn
    WHERE NOT aggregated AND turn.mine
    RETURNING entrypoint, priority, status, created
),
kept AS (
    UPDATE {log_batches_table} SET aggregated = true
    FROM turn
    WHERE NOT aggregated AND ids IS NOT NULL AND turn.mine
    RETURNING entrypoint, status, created, picked_at, queued_at, priority, priorities, jobs
),
dropped AS (
    DELETE FROM {log_batches_table}
    USING turn
    WHERE NOT aggregated AND ids IS NULL AND turn.mine
    RETURNING entrypoint, status, created, picked_at, queued_at, priority, priorities, jobs
),
batch AS (
    SELECT * FROM kept UNION ALL SELECT * FROM dropped
),
event AS (
    SELECT entrypoint, priority, status, date_trunc('sec', created) AS created, 1 AS jobs
    FROM entry
    UNION ALL
    SELECT batch.entrypoint, coalesce(batch.priority, job.priority), 'queued',
        date_trunc('sec', job.queued_at), 1
    FROM batch
    CROSS JOIN LATERAL unnest(batch.queued_at, batch.priorities) AS job (queued_at, priority)
    WHERE batch.queued_at IS NOT NULL
    UNION ALL
    SELECT batch.entrypoint, job.priority, event.status, date_trunc('sec', event.created),
        CASE WHEN batch.priority IS NULL THEN 1 ELSE batch.jobs END
    FROM batch
    CROSS JOIN LATERAL (
        VALUES (batch.picked_at, 'picked'::{queue_status_type}), (batch.created, batch.status)
    ) AS event (created, status)
    CROSS JOIN LATERAL unnest(
        CASE WHEN batch.priority IS NULL THEN batch.priorities ELSE ARRAY[batch.priority] END
    ) AS job (priority)
    WHERE event.created IS NOT NULL
)
INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
SELECT sum(jobs), created, entrypoint, priority, status
FROM event
GROUP BY created, entrypoint, priority, status
-- The same order in all, so that two of these do not wait for each other's buckets.
ORDER BY created, entrypoint, priority, status
ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
    DO UPDATE SET count = bucket.count + excluded.count
