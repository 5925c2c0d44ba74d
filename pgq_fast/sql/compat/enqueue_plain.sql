-- Enqueue jobs without dedupe keys, given as columns, and log them; their ids in any order.
WITH inserted AS (
    INSERT INTO {queue_table} (
        -- [extras
        execute_after, headers,
        -- extras]
        entrypoint, payload, priority, status
    )
    SELECT
        -- [extras
        (now() AT TIME ZONE 'UTC' + job.delay) AT TIME ZONE 'UTC', job.headers,
        -- extras]
        job.entrypoint, job.payload, job.priority, 'queued'
    FROM unnest(
        $1::text[], $2::bytea[], $3::int[]
        -- [extras
        , $4::interval[], $5::text[]::jsonb[]
        -- extras]
    ) WITH ORDINALITY AS job (
        entrypoint, payload, priority
        -- [extras
        , delay, headers
        -- extras]
        , place
    )
    -- Numbers the jobs in the order of the arguments: the lowest id is that of the first one.
    -- No sort, as the ordinality is known to be in order.
    ORDER BY job.place
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'queued', entrypoint, priority FROM inserted
RETURNING job_id
