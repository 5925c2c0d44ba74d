-- Enqueue one job without a dedupe key; its id.
-- [now
INSERT INTO {ready_table} (
-- now]
-- [later
INSERT INTO {deferred_table} (
-- later]
    -- [extras
    execute_after, headers,
    -- extras]
    entrypoint, payload, priority
)
VALUES (
    -- [extras
    (now() AT TIME ZONE 'UTC' + $4::interval) AT TIME ZONE 'UTC', $5::text::jsonb,
    -- extras]
    $1::text, $2::bytea, $3::int
)
RETURNING id
