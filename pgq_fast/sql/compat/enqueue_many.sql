-- Enqueue jobs given as columns and log them; for each that is in the queue now, its place among
-- the arguments and its id, in that order.
WITH
-- Materialized: nextval() must run once a row though the rows are read more than once.
input AS MATERIALIZED (
    SELECT nextval((SELECT pg_get_serial_sequence('{queue_table}', 'id')::regclass)) AS id, job.*
    FROM unnest($1::int[], $2::text[], $3::bytea[], $4::interval[], $5::text[], $6::text[]::jsonb[])
        WITH ORDINALITY
        AS job (priority, entrypoint, payload, delay, dedupe_key, headers, place)
),
inserted AS (
    INSERT INTO {queue_table} AS job
        (id, priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
    SELECT id, priority, entrypoint, payload,
        (now() AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC',
        dedupe_key, headers, 'queued'
    FROM input
    -- [skip
    -- The predicate of the partial unique index: PostgreSQL finds the index by it.
    ON CONFLICT (dedupe_key)
        WHERE status IN ('queued'::{queue_status_type}, 'picked'::{queue_status_type})
            AND dedupe_key IS NOT NULL
        DO NOTHING
    -- skip]
    -- [update_priority
    ON CONFLICT (dedupe_key)
        WHERE status IN ('queued'::{queue_status_type}, 'picked'::{queue_status_type})
            AND dedupe_key IS NOT NULL
        DO UPDATE SET priority = greatest(job.priority, excluded.priority)
    -- update_priority]
    RETURNING id, entrypoint, priority, dedupe_key
),
-- A job that kept its place with a new priority was logged when it came.
logged AS (
    INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
    SELECT inserted.id, 'queued', inserted.entrypoint, inserted.priority
    FROM inserted
    -- [update_priority
    JOIN input USING (id)
    -- update_priority]
)
SELECT input.place, inserted.id
FROM input
JOIN inserted ON inserted.id = input.id
    -- [update_priority
    OR inserted.dedupe_key = input.dedupe_key
    -- update_priority]
ORDER BY input.place
