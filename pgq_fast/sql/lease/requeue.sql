-- Queue the held jobs among $1 again, as if they had never been tried. $2 and $3 say what is logged.
--
-- The key of one may belong to another job by now, and then none is queued: the error is that of
-- the key.
WITH
modes AS MATERIALIZED (
    SELECT $2::text AS fallback, $3::text::jsonb AS exceptions
),
requeued AS (
    DELETE FROM {held_table} WHERE id = ANY($1::bigint[]) RETURNING *
),
keyed_again AS (
    INSERT INTO {dedupe_table} (key, job_id, entrypoint, priority)
    SELECT dedupe_key, id, entrypoint, priority FROM requeued WHERE dedupe_key IS NOT NULL
    -- As producers do, so that nobody waits for somebody who waits for him.
    ORDER BY dedupe_key
),
to_ready AS (
    INSERT INTO {ready_table} (id, priority, created, entrypoint, dedupe_key, payload, headers)
    SELECT id, priority, created, entrypoint, dedupe_key, payload, headers FROM requeued
),
moved AS MATERIALIZED (
    SELECT id, 'queued'::{queue_status_type} AS status, NULL::jsonb AS traceback, priority,
        entrypoint, created, NULL::uuid AS worker, NULL::timestamptz AS picked_at
    FROM requeued
),
-- include lease/parts/log_moves
SELECT id FROM moved
