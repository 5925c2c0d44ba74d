-- Enqueue one job and log it; 1 and its id, or nothing where its dedupe key is taken.
WITH inserted AS (
    INSERT INTO {queue_table}
        (priority, entrypoint, payload, execute_after, dedupe_key, headers, status)
    VALUES ($1::int, $2::text, $3::bytea, now() + $4::interval, $5::text, $6::text::jsonb, 'queued')
    -- [skip
    -- The predicate of the partial unique index: PostgreSQL finds the index by it.
    ON CONFLICT (dedupe_key)
        WHERE status IN ('queued'::{queue_status_type}, 'picked'::{queue_status_type})
            AND dedupe_key IS NOT NULL
        DO NOTHING
    -- skip]
    RETURNING id, entrypoint, priority
),
logged AS (
    INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
    SELECT id, 'queued', entrypoint, priority FROM inserted
)
SELECT 1 AS place, id FROM inserted
