-- Enqueue one job with a dedupe key; its id, or nothing where the key is taken.
WITH keyed AS (
    -- Waits for whoever is inserting or deleting the same key.
    INSERT INTO {dedupe_table} (key, job_id, entrypoint, priority)
    VALUES ($5::text, nextval('{ids_sequence}'), $1::text, $3::int)
    -- [skip
    ON CONFLICT (key) DO NOTHING
    -- skip]
    RETURNING key, job_id, entrypoint, priority
)
-- [now
INSERT INTO {ready_table}
-- now]
-- [later
INSERT INTO {deferred_table}
-- later]
    (id, priority, entrypoint, payload, execute_after, dedupe_key, headers)
SELECT job_id, priority, entrypoint, $2::bytea,
    (now() AT TIME ZONE 'UTC' + $4::interval) AT TIME ZONE 'UTC',
    key, $6::text::jsonb
FROM keyed
RETURNING id
