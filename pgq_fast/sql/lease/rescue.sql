-- Put back the jobs of leases of the entrypoints $2 whose worker has not been heard of for $1: it died,
-- or lost its connection. The end of the lease is what fences the worker off.
WITH
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
        execute_after, dedupe_keys, payloads, headers
),
wanted AS (
    SELECT job.key FROM stale CROSS JOIN LATERAL unnest(stale.dedupe_keys) AS job (key)
),
-- include lease/parts/keyed jobs=wanted
job AS MATERIALIZED (
    SELECT stale.id AS lease, stale.entrypoint, job.place, job.id,
        coalesce(keyed.priority, job.priority) AS priority, job.attempts, job.created,
        job.execute_after, job.dedupe_key, job.payload, job.headers
    FROM stale
    CROSS JOIN LATERAL unnest(
        stale.ids, stale.priorities, stale.attempts, stale.created, stale.execute_after,
        stale.dedupe_keys, stale.payloads, stale.headers
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, dedupe_key, payload, headers, place
    )
    LEFT JOIN keyed ON keyed.key = job.dedupe_key AND keyed.job_id = job.id
    WHERE get_bit(stale.done, job.place::integer - 1) = 0
),
again AS (
    INSERT INTO {ready_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    FROM job
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
        -- [selective
        SELECT coalesce((SELECT $4::text::jsonb) ->> stale.entrypoint, (SELECT $3::text)) = 'all'
            AS kept
        -- selective]
        -- [unselective
        SELECT true AS kept
        -- unselective]
    ) AS log
)
SELECT count(*) AS jobs FROM job
