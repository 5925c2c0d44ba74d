-- Enqueue one job and log it; its id, or nothing where its dedupe key is taken.
WITH inserted AS (
    INSERT INTO {queue_table} (
        -- [extras
        execute_after, dedupe_key, headers,
        -- extras]
        entrypoint, payload, priority, status
    )
    VALUES (
        -- [extras
        (now() AT TIME ZONE 'UTC' + $4::interval) AT TIME ZONE 'UTC', $5::text, $6::text::jsonb,
        -- extras]
        $1::text, $2::bytea, $3::int, 'queued'
    )
    -- [skip
    -- The predicate of the partial unique index: PostgreSQL finds the index by it.
    ON CONFLICT (dedupe_key)
        WHERE status IN ('queued'::{queue_status_type}, 'picked'::{queue_status_type})
            AND dedupe_key IS NOT NULL
        DO NOTHING
    -- skip]
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'queued', entrypoint, priority FROM inserted
RETURNING job_id
