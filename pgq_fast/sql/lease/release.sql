-- Give back what the worker $1 has claimed, except the jobs $2: claims that it never started.
WITH
mine AS MATERIALIZED (
    SELECT id, entrypoint, worker, picked_at, done, ids, priorities, attempts, created,
        execute_after, dedupe_keys, payloads, headers,
        -- include lease/parts/fits
    FROM {lease_table}
    WHERE worker = $1::uuid
    ORDER BY id
    FOR UPDATE
),
wanted AS (
    SELECT job.key FROM mine CROSS JOIN LATERAL unnest(mine.dedupe_keys) AS job (key)
),
-- include lease/parts/keyed jobs=wanted
job AS MATERIALIZED (
    SELECT mine.id AS lease, mine.entrypoint, job.place, job.id,
        coalesce(keyed.priority, job.priority) AS priority, job.attempts, job.created,
        job.execute_after, job.dedupe_key, job.payload, job.headers
    FROM mine
    CROSS JOIN LATERAL unnest(
        mine.ids, mine.priorities, mine.attempts, mine.created, mine.execute_after,
        mine.dedupe_keys, mine.payloads, mine.headers
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, dedupe_key, payload, headers, place
    )
    LEFT JOIN keyed ON keyed.key = job.dedupe_key AND keyed.job_id = job.id
    -- What cannot be read is left to a rescue.
    WHERE mine.fits AND substring(mine.done, job.place::integer, 1) = B'0'
        AND job.id IS NOT NULL AND job.priority IS NOT NULL AND job.attempts IS NOT NULL
        AND job.created IS NOT NULL AND job.execute_after IS NOT NULL
        AND NOT job.id = ANY((SELECT $2::text::bigint[])::bigint[])
),
after AS MATERIALIZED (
    SELECT mine.id, bit_or(set_bit(mine.done, job.place::integer - 1, 1)) AS done
    FROM job
    JOIN mine ON mine.id = job.lease
    GROUP BY mine.id
),
kept AS (
    UPDATE {lease_table} AS lease
    SET done = after.done
    FROM after
    WHERE lease.id = after.id AND bit_count(after.done) < length(after.done)
),
gone AS (
    DELETE FROM {lease_table} AS lease
    USING after
    WHERE lease.id = after.id AND bit_count(after.done) = length(after.done)
),
again AS (
    INSERT INTO {ready_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    FROM job
    ON CONFLICT DO NOTHING
),
logged AS (
    INSERT INTO {log_batches_table} (
        created, status, entrypoint, worker, jobs, first_id, last_id, ids, priorities
    )
    SELECT event.created, event.status, mine.entrypoint, mine.worker, batch.jobs,
        CASE WHEN kept THEN batch.first_id END, CASE WHEN kept THEN batch.last_id END,
        CASE WHEN kept THEN batch.ids END, batch.priorities
    FROM mine
    JOIN (
        SELECT lease, count(*) AS jobs, min(id) AS first_id, max(id) AS last_id,
            array_agg(id ORDER BY place) AS ids, array_agg(priority ORDER BY place) AS priorities
        FROM job
        GROUP BY lease
    ) AS batch ON batch.lease = mine.id
    CROSS JOIN LATERAL (
        -- [selective
        SELECT coalesce((SELECT $4::text::jsonb) ->> mine.entrypoint, (SELECT $3::text)) = 'all'
            AS kept
        -- selective]
        -- [unselective
        SELECT true AS kept
        -- unselective]
    ) AS log
    CROSS JOIN LATERAL (
        VALUES (mine.picked_at, 'picked'::{queue_status_type}), (now(), 'queued')
    ) AS event (created, status)
)
SELECT count(*) AS jobs FROM job
