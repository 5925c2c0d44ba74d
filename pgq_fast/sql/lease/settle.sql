-- End or put back single jobs of the worker $3: those at the places $2, from 1, of the leases $1, with
-- the statuses $4 and the traceback records $5. `queued` puts a job back to run after its delay in $6,
-- `failed` holds it, any other status is its end. Repeating it changes nothing.
WITH
-- include lease/parts/relaxed
wish AS MATERIALIZED (
    SELECT lease, place, status, traceback, delay
    FROM unnest(
        $1::text::bigint[], $2::text::bigint[], $4::text[]::{queue_status_type}[],
        $5::text[]::jsonb[], $6::interval[]
    ) AS wish (lease, place, status, traceback, delay)
),
-- Locked, so that what is read here is the latest.
mine AS MATERIALIZED (
    SELECT id, entrypoint, worker, picked_at, done, ids, priorities, attempts, created,
        execute_after, dedupe_keys, payloads, headers
    FROM {lease_table}
    WHERE id = ANY($1::text::bigint[]) AND worker IS NOT DISTINCT FROM $3::uuid
    FOR UPDATE
),
wanted AS (
    SELECT job.key
    FROM mine
    CROSS JOIN LATERAL unnest(mine.dedupe_keys) WITH ORDINALITY AS job (key, place)
    JOIN wish ON wish.lease = mine.id AND wish.place = job.place
),
-- include lease/parts/keyed jobs=wanted
-- What is not done yet.
job AS MATERIALIZED (
    SELECT mine.id AS lease, mine.entrypoint, mine.worker, mine.picked_at, job.place, job.id,
        coalesce(keyed.priority, job.priority) AS priority, job.attempts, job.created,
        job.execute_after, job.dedupe_key, wish.status, wish.traceback, wish.delay
        -- [payloads
        , job.payload, job.headers
        -- payloads]
    FROM mine
    CROSS JOIN LATERAL unnest(
        mine.ids, mine.priorities, mine.attempts, mine.created, mine.execute_after,
        mine.dedupe_keys
        -- [payloads
        , mine.payloads, mine.headers
        -- payloads]
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, dedupe_key
        -- [payloads
        , payload, headers
        -- payloads]
        , place
    )
    JOIN wish ON wish.lease = mine.id AND wish.place = job.place
    LEFT JOIN keyed ON keyed.key = job.dedupe_key AND keyed.job_id = job.id
    WHERE get_bit(mine.done, job.place::integer - 1) = 0
),
after AS MATERIALIZED (
    SELECT mine.id, mine.done | marks.bits AS done
    FROM mine
    JOIN (
        SELECT mine.id,
            bit_or(set_bit(
                repeat('0', length(mine.done))::bit varying, job.place::integer - 1, 1
            )) AS bits
        FROM job
        JOIN mine ON mine.id = job.lease
        GROUP BY mine.id
    ) AS marks USING (id)
),
kept AS (
    UPDATE {lease_table} AS lease
    SET done = after.done, heartbeat = now()
    FROM after
    WHERE lease.id = after.id AND bit_count(after.done) < length(after.done)
),
gone AS (
    DELETE FROM {lease_table} AS lease
    USING after
    WHERE lease.id = after.id AND bit_count(after.done) = length(after.done)
),
-- [payloads
again AS (
    INSERT INTO {ready_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, attempts + 1, created, now() + delay, entrypoint, dedupe_key, payload,
        headers
    FROM job
    WHERE status = 'queued' AND delay <= interval '0'
),
later AS (
    INSERT INTO {deferred_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, attempts + 1, created, now() + delay, entrypoint, dedupe_key, payload,
        headers
    FROM job
    WHERE status = 'queued' AND delay > interval '0'
),
holding AS (
    INSERT INTO {held_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    FROM job
    WHERE status = 'failed'
),
-- payloads]
freed AS (
    DELETE FROM {dedupe_table} AS dedupe
    USING job
    WHERE dedupe.key = job.dedupe_key AND dedupe.job_id = job.id AND job.status <> 'queued'
),
-- That a job was enqueued is part of the log while it has a place; when it leaves, that is written.
logged AS (
    INSERT INTO {log_entries_table} (created, job_id, status, priority, entrypoint, traceback)
    SELECT event.created, job.id, event.status, job.priority, job.entrypoint, event.traceback
    FROM job
    CROSS JOIN LATERAL (
        VALUES
            (
                CASE WHEN job.status NOT IN ('queued', 'failed') THEN job.created END,
                'queued'::{queue_status_type}, NULL::jsonb
            ),
            (job.picked_at, 'picked', NULL),
            (now(), job.status, job.traceback)
    ) AS event (created, status, traceback)
    WHERE event.created IS NOT NULL
        -- [selective
        AND coalesce((SELECT $8::text::jsonb) ->> job.entrypoint, (SELECT $7::text)) <> 'none'
        -- selective]
    ORDER BY job.id, event.created
)
-- [selective
-- Of what the settings keep no log of, the statistics get the number.
, counted AS (
    INSERT INTO {log_batches_table} (
        status, entrypoint, worker, priority, picked_at, jobs, queued_at
    )
    SELECT status, entrypoint, worker, priority, picked_at, 1,
        CASE WHEN status NOT IN ('queued', 'failed') THEN ARRAY[created] END
    FROM job
    WHERE coalesce((SELECT $8::text::jsonb) ->> entrypoint, (SELECT $7::text)) = 'none'
)
-- selective]
SELECT count(*) AS jobs
-- [relaxed
    , (SELECT setting FROM relaxed)
-- relaxed]
FROM job
