-- Copy jobs into the queue table of the compat layout: those that are queued and those that are held. A
-- job in a lease is not copied.
-- [walk
-- Up to $2 jobs of one table, in the order of its index behind the place $3, $4, $5, of held ones behind
-- the id $3. With payloads of up to 64 MB, so that the migration $1 does not lapse meanwhile. The last
-- place.
--
-- A job may have changed since another one was copied, and then its id or its key may seem to be taken. It
-- has been noted as changed and will be copied again.
-- walk]
-- [changed
-- The jobs $2, whose copies have been removed, as the notes $3 of their changes say where they are; these
-- are forgotten. A job that has moved on meanwhile has a later note.
-- changed]
-- [rest
-- All jobs that were noted as changed.
-- rest]
WITH
-- [fenced
-- include migrate/turn
-- fenced]
-- [changed
spot AS MATERIALIZED (
    SELECT id, entrypoint, priority, execute_after
    FROM {changes_table}
    WHERE n = ANY ($3::bigint[]) AND entrypoint IS NOT NULL AND EXISTS (SELECT FROM turn)
),
-- changed]
-- [rest
spot AS MATERIALIZED (
    SELECT id, entrypoint, priority, execute_after
    FROM {changes_table}
    WHERE entrypoint IS NOT NULL
),
-- rest]
found AS MATERIALIZED (
    -- [walk
    SELECT *
    FROM (
        SELECT *, sum(bytes) OVER (
                -- [ready
                ORDER BY entrypoint, ~priority, id
                -- ready]
                -- [deferred
                ORDER BY entrypoint, execute_after, id
                -- deferred]
                -- [held
                ORDER BY id
                -- held]
                ROWS UNBOUNDED PRECEDING
            ) - bytes AS before
        FROM (
            SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload,
                headers,
                coalesce(octet_length(payload), 0) + coalesce(pg_column_size(headers), 0) AS bytes,
                -- [ready
                created AS updated, 'queued' AS status
            FROM {ready_table} AS job
            -- Holds the order of the index, see compat/claim.sql.
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE (entrypoint, (~priority), id) > ($3::text, $4::text::int, $5::bigint)
                AND EXISTS (SELECT FROM turn)
            ORDER BY entrypoint, (~priority), id
                -- ready]
                -- [deferred
                created AS updated, 'queued' AS status
            FROM {deferred_table} AS job
            -- Holds the order of the index, see compat/claim.sql.
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE (entrypoint, execute_after, id) > ($3::text, $4::text::timestamp AT TIME ZONE 'UTC', $5::bigint)
                AND EXISTS (SELECT FROM turn)
            ORDER BY entrypoint, execute_after, id
                -- deferred]
                -- [held
                held_at AS updated, 'failed' AS status
            FROM {held_table} AS job
            -- Holds the order of the index, see compat/claim.sql.
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE id > $3::bigint AND EXISTS (SELECT FROM turn)
            ORDER BY id
                -- held]
            LIMIT $2::bigint
        ) AS job
    ) AS job
    WHERE before < 64 * 1024 * 1024
    -- walk]
    -- [noted
    -- With a limit, one job after the other is looked up, however many the planner expects.
    SELECT job.id, job.priority, job.attempts, job.created, job.execute_after, job.entrypoint,
        job.dedupe_key, job.payload, job.headers, job.created AS updated, 'queued' AS status
    FROM (SELECT DISTINCT id, entrypoint, priority FROM spot) AS spot
    CROSS JOIN LATERAL (
        SELECT *
        FROM {ready_table} AS ready
        WHERE ready.entrypoint = spot.entrypoint AND (~ready.priority) = ~spot.priority
            AND ready.id = spot.id
        LIMIT 1
    ) AS job
    UNION ALL
    SELECT job.id, job.priority, job.attempts, job.created, job.execute_after, job.entrypoint,
        job.dedupe_key, job.payload, job.headers, job.created, 'queued'
    FROM (SELECT DISTINCT id, entrypoint, execute_after FROM spot) AS spot
    CROSS JOIN LATERAL (
        SELECT *
        FROM {deferred_table} AS deferred
        WHERE deferred.entrypoint = spot.entrypoint AND deferred.execute_after = spot.execute_after
            AND deferred.id = spot.id
        LIMIT 1
    ) AS job
    UNION ALL
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers,
        held_at, 'failed'
    FROM {held_table}
    -- [changed
    WHERE id = ANY ($2::bigint[]) AND EXISTS (SELECT FROM turn)
    -- changed]
    -- [rest
    WHERE id IN (SELECT id FROM {changes_table})
    -- rest]
    -- noted]
),
copied AS (
    INSERT INTO {staged_table} (
        id, priority, created, updated, heartbeat, execute_after, status, entrypoint, dedupe_key,
        payload, headers, attempts
    )
    SELECT id, priority, created, updated, updated, execute_after, status::{queue_status_type},
        entrypoint, dedupe_key, payload, headers, attempts
    FROM found
    ORDER BY id
    -- [walk
    ON CONFLICT DO NOTHING
    -- walk]
)
-- [changed
, settled AS (
    DELETE FROM {changes_table} WHERE n = ANY ($3::bigint[]) AND EXISTS (SELECT FROM turn)
)
SELECT EXISTS (SELECT FROM turn) AS mine, (SELECT count(*) FROM found) AS jobs
-- changed]
-- [walk
SELECT EXISTS (SELECT FROM turn) AS mine, count(*) OVER () AS jobs,
    -- include migrate/to_compat/reached rows=found
LIMIT 1
-- walk]
-- [rest
SELECT count(*) AS jobs FROM found
-- rest]
