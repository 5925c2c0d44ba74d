-- Of up to $2 jobs that were moved, behind the id $3: take out of the log that they were
-- enqueued, and off the statistics. While a job lives, the lease layout derives that from its row, and
-- logs and counts it when the job ends.
--
-- The entry is the one with the time of the job. Where it has been pruned, it had been counted. All are
-- counted before this begins. That a job's row here goes with its entry makes this happen once.
WITH
turn AS MATERIALIZED (
    UPDATE {migration_table} SET alive_until = clock_timestamp() + life
    WHERE token = $1::uuid AND alive_until > clock_timestamp()
    RETURNING token
),
batch AS MATERIALIZED (
    SELECT id
    FROM {moved_table}
    WHERE id > $3::bigint AND EXISTS (SELECT FROM turn)
    ORDER BY id
    LIMIT $2::bigint
),
moved AS (
    DELETE FROM {moved_table}
    WHERE id = ANY (ARRAY(SELECT id FROM batch))
    RETURNING id, created, entrypoint, priority
),
entry AS (
    DELETE FROM {log_entries_table} AS entry
    USING moved
    WHERE entry.job_id = moved.id AND entry.created = moved.created AND entry.status = 'queued'
    RETURNING entry.job_id, entry.priority
),
enqueued AS (
    SELECT date_trunc('sec', timezone('UTC', moved.created)) AS second, moved.entrypoint,
        coalesce(entry.priority, moved.priority) AS priority, count(*) AS jobs
    FROM moved
    LEFT JOIN entry ON entry.job_id = moved.id
    GROUP BY 1, 2, 3
),
discounted AS (
    UPDATE {statistics_table} AS bucket
    SET count = greatest(bucket.count - enqueued.jobs, 0)
    FROM enqueued
    WHERE bucket.priority = enqueued.priority
        AND date_trunc('sec', timezone('UTC', bucket.created)) = enqueued.second
        AND bucket.status = 'queued' AND bucket.entrypoint = enqueued.entrypoint
)
SELECT EXISTS (SELECT FROM turn) AS mine, count(*) AS jobs, max(id) AS id FROM batch
