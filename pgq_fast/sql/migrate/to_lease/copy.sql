-- Copy jobs into the lease layout: those that are queued, as they may run now or later, and those that
-- are held. A job that a worker holds is not copied.
-- [walk
-- Of up to $2 jobs below the id $3, the youngest first: workers empty the queue from the other end. With
-- payloads of up to 64 MB, so that the migration $1 does not lapse meanwhile. The lowest id.
--
-- A job may have changed since another one was copied, and then its key may seem to be taken. It has been
-- noted as changed and will be copied again.
-- walk]
-- [changed
-- The jobs $2, whose copies have been removed, and forget the notes $3 of their changes.
-- changed]
-- [rest
-- All jobs that were noted as changed, and those of workers that are not waited for any more.
-- rest]
WITH
-- [fenced
-- include migrate/turn
-- fenced]
found AS MATERIALIZED (
    -- [walk
    SELECT *
    FROM (
        SELECT *, sum(bytes) OVER (ORDER BY id DESC ROWS UNBOUNDED PRECEDING) - bytes AS before
        FROM (
            SELECT queue.id, queue.priority, queue.attempts, queue.created, queue.updated,
                queue.execute_after, queue.entrypoint, queue.dedupe_key, queue.payload,
                queue.headers, queue.status::text AS status,
                coalesce(octet_length(queue.payload), 0)
                    + coalesce(pg_column_size(queue.headers), 0) AS bytes
            FROM {queue_table} AS queue
            -- Holds the order of the index, see compat/claim.sql.
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE queue.id < $3::bigint AND EXISTS (SELECT FROM turn)
            ORDER BY queue.id DESC
            LIMIT $2::bigint
        ) AS job
    ) AS job
    WHERE before < 64 * 1024 * 1024
    -- walk]
    -- [changed
    SELECT id, priority, attempts, created, updated, execute_after, entrypoint, dedupe_key,
        payload, headers, status::text AS status
    FROM {queue_table}
    WHERE id = ANY ($2::bigint[]) AND status::text IN ('queued', 'failed')
        AND EXISTS (SELECT FROM turn)
    -- changed]
    -- [rest
    SELECT id, priority, attempts, created, updated, execute_after, entrypoint, dedupe_key,
        payload, headers, CASE status WHEN 'failed' THEN 'failed' ELSE 'queued' END AS status
    FROM {queue_table}
    WHERE id IN (SELECT id FROM {changes_table})
    -- rest]
),
keyed AS (
    INSERT INTO {staged_dedupe_table} (key, job_id, entrypoint, priority)
    SELECT dedupe_key, id, entrypoint, priority
    FROM found
    WHERE dedupe_key IS NOT NULL AND status = 'queued'
    -- [walk
    ON CONFLICT (key) DO NOTHING
    -- walk]
    RETURNING job_id
),
job AS (
    SELECT *
    FROM found
    -- [walk
    WHERE status = 'failed'
        OR status = 'queued' AND (dedupe_key IS NULL OR id IN (SELECT job_id FROM keyed))
    -- walk]
),
ready AS (
    INSERT INTO {staged_ready_table}
        (id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers)
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    FROM job
    WHERE status = 'queued' AND execute_after <= now()
    ORDER BY id
),
deferred AS (
    INSERT INTO {staged_deferred_table}
        (id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers)
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    FROM job
    WHERE status = 'queued' AND execute_after > now()
    ORDER BY id
),
held AS (
    INSERT INTO {staged_held_table}
        (id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers,
        held_at)
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers,
        updated
    FROM job
    WHERE status = 'failed'
    ORDER BY id
)
-- [changed
, settled AS (
    DELETE FROM {changes_table} WHERE n = ANY ($3::bigint[]) AND EXISTS (SELECT FROM turn)
)
SELECT EXISTS (SELECT FROM turn) AS mine, (SELECT count(*) FROM found) AS jobs
-- changed]
-- [walk
SELECT EXISTS (SELECT FROM turn) AS mine, count(*) AS jobs, min(id) AS id
FROM found
-- walk]
-- [rest
SELECT count(*) AS jobs FROM found
-- rest]
