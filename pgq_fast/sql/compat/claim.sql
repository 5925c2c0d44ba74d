-- Claim up to $1 queued jobs of the entrypoints $2 for the worker $3, best priority first, oldest
-- first within a priority.
--
-- For entrypoints without a concurrency limit; claim_limited.sql has the rest.
WITH
-- [relaxed
-- The commit of a claim does not wait for the disk. A crash of the server that loses it leaves the
-- jobs queued, to be claimed again. Local to this statement's own transaction.
relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
),
-- relaxed]
-- [budget
-- $5: the most jobs that this worker may hold.
room AS MATERIALIZED (
    SELECT greatest(least($1::bigint, $5::bigint - count(*)), 0) AS jobs
    FROM {queue_table}
    WHERE queue_manager_id = $3::uuid AND entrypoint = ANY($2::text[])
),
-- budget]
-- One ordered index scan an entrypoint. A job that another worker is about to claim is skipped, so
-- that workers neither wait for each other nor claim the same job.
next AS (
    SELECT job.id, job.priority
    FROM unnest($2::text[]) AS wanted (entrypoint)
    CROSS JOIN LATERAL (
        SELECT id, priority
        FROM {queue_table}
        WHERE entrypoint = wanted.entrypoint AND status = 'queued' AND execute_after < now()
        ORDER BY priority DESC, id
        LIMIT $1::bigint
        FOR UPDATE SKIP LOCKED
    ) AS job
),
-- [rescue
-- Picked jobs whose worker has not been heard of for $4: it died, or lost its connection.
stale AS (
    SELECT id, priority
    FROM {queue_table}
    WHERE status = 'picked' AND heartbeat < now() - $4::interval
        AND entrypoint = ANY($2::text[]) AND execute_after < now()
    ORDER BY priority DESC, id
    LIMIT $1::bigint
    FOR UPDATE SKIP LOCKED
),
-- rescue]
best AS (
    SELECT id
    FROM (
        SELECT id, priority FROM next
        -- [rescue
        UNION ALL
        SELECT id, priority FROM stale
        -- rescue]
    ) AS job
    ORDER BY priority DESC, id
    -- [fixed
    LIMIT $1::bigint
    -- fixed]
    -- [budget
    LIMIT (SELECT jobs FROM room)
    -- budget]
),
-- The array keeps this an index scan by id whatever the planner believes about the sizes.
-- A rescued job keeps the seat that it holds; a queued one holds none.
claimed AS (
    UPDATE {queue_table}
    SET status = 'picked', updated = now(), heartbeat = now(), queue_manager_id = $3::uuid,
        slot = CASE WHEN status = 'picked' THEN slot END
    WHERE id = ANY(ARRAY(SELECT id FROM best))
        -- [relaxed
        AND (SELECT setting FROM relaxed) = 'off'
        -- relaxed]
    RETURNING id, priority, entrypoint, payload, attempts, headers, created, execute_after,
        updated, slot
),
logged AS (
    INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
    SELECT id, 'picked', entrypoint, priority FROM claimed
)
-- What does not differ from job to job is not fetched; the three times travel as one value.
SELECT id, priority, entrypoint, payload, attempts, headers::text AS headers,
    timestamptz_send(created) || timestamptz_send(execute_after) || timestamptz_send(updated)
        AS times,
    slot
FROM claimed
ORDER BY priority DESC, id
