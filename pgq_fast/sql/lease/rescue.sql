-- Put back the jobs of leases of the entrypoints $2 whose worker has not been heard of for $1: it died,
-- or lost its connection. The end of the lease is what fences the worker off.
--
-- Returns how many it were, and which leases and jobs had no job's values, be it that somebody edited
-- them. Those jobs end as exceptions: left as they are they would stop every further rescue.
WITH
modes AS MATERIALIZED (
    -- [selective
    SELECT $3::text AS fallback, $4::text::jsonb AS exceptions
    -- selective]
    -- [unselective
    SELECT 'all' AS fallback, '{{}}'::jsonb AS exceptions
    -- unselective]
),
stale AS (
    DELETE FROM {lease_table}
    WHERE ctid = ANY(ARRAY(
        SELECT ctid
        FROM {lease_table}
        WHERE heartbeat < now() - $1::interval AND entrypoint = ANY($2::text[])
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id, entrypoint, worker, picked_at, done, ids, priorities, attempts, created,
        execute_after, dedupe_keys, payloads, headers,
        -- include lease/parts/fits
),
wanted AS (
    SELECT job.key FROM stale CROSS JOIN LATERAL unnest(stale.dedupe_keys) AS job (key)
),
-- include lease/parts/keyed jobs=wanted
found AS MATERIALIZED (
    SELECT stale.id AS lease, stale.entrypoint, job.place, job.id,
        coalesce(keyed.priority, job.priority) AS priority, job.attempts, job.created,
        job.execute_after, job.dedupe_key, job.payload, job.headers,
        stale.fits AND job.id IS NOT NULL AND job.priority IS NOT NULL
            AND job.attempts IS NOT NULL AND job.created IS NOT NULL
            AND job.execute_after IS NOT NULL AS good
    FROM stale
    CROSS JOIN LATERAL unnest(
        stale.ids, stale.priorities, stale.attempts, stale.created, stale.execute_after,
        stale.dedupe_keys, stale.payloads, stale.headers
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, dedupe_key, payload, headers, place
    )
    LEFT JOIN keyed ON keyed.key = job.dedupe_key AND keyed.job_id = job.id
    WHERE substring(stale.done, job.place::integer, 1) <> B'1'
),
job AS MATERIALIZED (
    SELECT * FROM found WHERE good
),
again AS (
    INSERT INTO {ready_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    FROM job
    -- Somebody may have put it back by hand.
    ON CONFLICT DO NOTHING
),
logged AS (
    INSERT INTO {log_batches_table} (
        created, status, entrypoint, worker, jobs, first_id, last_id, ids, priorities
    )
    SELECT stale.picked_at, 'picked', stale.entrypoint, stale.worker, batch.jobs,
        CASE WHEN kept THEN batch.first_id END, CASE WHEN kept THEN batch.last_id END,
        CASE WHEN kept THEN batch.ids END, batch.priorities
    FROM stale
    JOIN (
        SELECT lease, count(*) AS jobs, min(id) AS first_id, max(id) AS last_id,
            array_agg(id ORDER BY place) AS ids, array_agg(priority ORDER BY place) AS priorities
        FROM job
        GROUP BY lease
    ) AS batch ON batch.lease = stale.id
    CROSS JOIN LATERAL (
        SELECT coalesce(modes.exceptions ->> stale.entrypoint, modes.fallback) = 'all' AS kept
        FROM modes
    ) AS log
),
bad AS MATERIALIZED (
    SELECT * FROM found WHERE NOT good
),
freed AS (
    DELETE FROM {dedupe_table}
    WHERE key = ANY(ARRAY(SELECT keyed.key FROM keyed JOIN bad ON bad.id = keyed.job_id))
),
moved AS MATERIALIZED (
    SELECT bad.id, 'exception'::{queue_status_type} AS status,
        jsonb_build_object(
            'job_id', bad.id,
            'timestamp', now(),
            'exception_type', 'MalformedRowError',
            'exception_message', 'lease ' || bad.lease || ' cannot be read: something has changed '
                'its row since the claim; see what did, and enqueue the job again',
            'traceback', '',
            'additional_context', jsonb_build_object(
                'entrypoint', bad.entrypoint, 'queue_manager_id', stale.worker
            )
        ) AS traceback,
        coalesce(bad.priority, 0) AS priority, bad.entrypoint,
        coalesce(bad.created, stale.picked_at) AS created, stale.worker, stale.picked_at
    FROM bad
    JOIN stale ON stale.id = bad.lease
    WHERE bad.id IS NOT NULL
),
-- include lease/parts/log_moves
SELECT
    (SELECT count(*) FROM job) AS jobs,
    (
        SELECT string_agg('lease ' || lease || ': job ' || coalesce(id::text, '?'), ', ')
        FROM (SELECT lease, id FROM bad ORDER BY lease, place LIMIT 100) AS first
    ) AS bad
