-- Of up to $2 jobs that were moved, behind the id $3: take out of the log that they were enqueued, and off
-- the statistics. While a job lives, the lease layout derives that from its row, and logs and counts it
-- when the job ends. The last id.
--
-- The entry is the one with the time of the job. Where it has been pruned, it had been counted. That a
-- job's row here goes with its entry makes this happen once.
WITH
-- include migrate/turn
batch AS MATERIALIZED (
    SELECT moved.id
    FROM {moved_table} AS moved
    -- Holds the order of the index, see compat/claim.sql.
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE moved.id > $3::bigint AND EXISTS (SELECT FROM turn)
    ORDER BY moved.id
    LIMIT $2::bigint
),
moved AS (
    DELETE FROM {moved_table}
    WHERE id = ANY (ARRAY(SELECT id FROM batch))
    RETURNING id, created, entrypoint, priority
),
-- Whoever is counting the entry is waited for, so that it says whether it has been counted.
entry AS (
    DELETE FROM {log_entries_table} AS entry
    USING moved
    WHERE entry.job_id = moved.id AND entry.created = moved.created
        -- As text, so that its index is no choice.
        AND entry.status::text = 'queued'
    RETURNING entry.job_id, entry.created, entry.entrypoint, entry.priority, entry.aggregated
),
-- Not by UPDATE, which would not see the count that was waited for.
discounted AS (
    INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
    SELECT -count(*), date_trunc('sec', created), entrypoint, priority, 'queued'
    FROM (
        SELECT created, entrypoint, priority FROM entry WHERE aggregated
        UNION ALL
        -- Not a join, for which the planner would expect next to no rows.
        SELECT created, entrypoint, priority FROM moved WHERE id NOT IN (SELECT job_id FROM entry)
    ) AS enqueue
    GROUP BY 2, entrypoint, priority
    -- The same order in all, so that two of these do not wait for each other's buckets.
    ORDER BY 2, entrypoint, priority
    ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
        DO UPDATE SET count = bucket.count + excluded.count
)
SELECT EXISTS (SELECT FROM turn) AS mine, count(*) AS jobs, max(id) AS id
FROM batch
