-- Turn batches of the log into entries: up to $2 jobs, and one batch in any case.
-- [before
-- Behind the batch $3 and up to $4; the last one. The log says the same before and after.
-- before]
-- [after
-- Before the batch $3, the latest first: somebody may still wait to hear of them. The first one.
-- after]
-- What is kept for the statistics only is counted.
WITH
-- include migrate/turn
batch AS MATERIALIZED (
    SELECT id
    FROM (
        SELECT id, sum(jobs) OVER (
                -- [before
                ORDER BY id
                -- before]
                -- [after
                ORDER BY id DESC
                -- after]
                ROWS UNBOUNDED PRECEDING
            ) - jobs AS before
        FROM (
            SELECT batch.id, batch.jobs
            -- [before
            FROM {log_batches_table} AS batch
            -- before]
            -- [after
            FROM {moved_batches_table} AS batch
            -- after]
            -- Holds the order of the index, see compat/claim.sql.
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            -- [before
            WHERE batch.id > $3::bigint AND batch.id <= $4::bigint AND EXISTS (SELECT FROM turn)
            ORDER BY batch.id
            -- before]
            -- [after
            WHERE batch.id < $3::bigint AND EXISTS (SELECT FROM turn)
            ORDER BY batch.id DESC
            -- after]
            LIMIT $2::bigint
        ) AS batch
    ) AS batch
    WHERE before < $2::bigint
),
taken AS (
    DELETE FROM
        -- [before
        {log_batches_table}
        -- before]
        -- [after
        {moved_batches_table}
        -- after]
    WHERE id = ANY (ARRAY(SELECT id FROM batch))
    RETURNING *
),
event AS MATERIALIZED (
    SELECT job.id, event.created, event.step, event.status,
        coalesce(taken.priority, job.priority) AS priority, taken.entrypoint, taken.aggregated
    FROM taken
    CROSS JOIN LATERAL unnest(
        coalesce(taken.ids, array_fill(NULL::bigint, ARRAY[taken.jobs])), taken.priorities,
        taken.queued_at
    ) AS job (id, priority, queued_at)
    CROSS JOIN LATERAL (
        VALUES
            (1, job.queued_at, 'queued'::{queue_status_type}),
            (2, taken.picked_at, 'picked'),
            (3, taken.created, taken.status)
    ) AS event (step, created, status)
    WHERE event.created IS NOT NULL
),
entered AS (
    INSERT INTO
        -- [before
        {log_entries_table}
        -- before]
        -- [after
        {queue_table_log}
        -- after]
        (created, job_id, status, priority, entrypoint, aggregated)
    SELECT created, id, status, priority, entrypoint, aggregated
    FROM event
    WHERE id IS NOT NULL
    ORDER BY created, step
),
counted AS (
    INSERT INTO {statistics_table} AS bucket (count, created, entrypoint, priority, status)
    SELECT count(*), date_trunc('sec', created), entrypoint, priority, status
    FROM event
    WHERE id IS NULL AND NOT aggregated
    GROUP BY 2, entrypoint, priority, status
    -- The same order in all, so that two of these do not wait for each other's buckets.
    ORDER BY 2, entrypoint, priority, status
    ON CONFLICT (priority, date_trunc('sec', timezone('UTC', created)), status, entrypoint)
        DO UPDATE SET count = bucket.count + excluded.count
)
SELECT EXISTS (SELECT FROM turn) AS mine, (SELECT count(*) FROM batch) AS batches,
    -- [before
    (SELECT max(id) FROM batch) AS id,
    -- before]
    -- [after
    (SELECT min(id) FROM batch) AS id,
    -- after]
    (SELECT coalesce(sum(jobs), 0)::bigint FROM taken) AS jobs
