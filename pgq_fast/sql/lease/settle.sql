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
    ORDER BY id
    FOR UPDATE
),
-- The bits of the jobs that are meant and not done yet. With them each lease is unpacked once, not once
-- a job.
meant AS MATERIALIZED (
    SELECT mine.id,
        bit_or(set_bit(mine.done # mine.done, wish.place::integer - 1, 1)) & ~mine.done AS bits
    FROM wish
    JOIN mine ON mine.id = wish.lease AND wish.place <= length(mine.done)
    GROUP BY mine.id, mine.done
),
part AS MATERIALIZED (
    SELECT mine.id AS lease, mine.entrypoint, mine.worker, mine.picked_at, job.*
    FROM meant
    JOIN mine USING (id)
    CROSS JOIN LATERAL unnest(
        mine.ids, mine.priorities, mine.attempts, mine.created, mine.execute_after,
        mine.dedupe_keys
        -- [payloads
        , mine.payloads, mine.headers
        -- payloads]
    ) WITH ORDINALITY AS job (
        id, priority, attempts, created, execute_after, key
        -- [payloads
        , payload, headers
        -- payloads]
        , place
    )
    -- What somebody wrote into one lease must not keep the jobs of others from ending: so there is an
    -- answer to everything that is missing in there, here and below.
    WHERE substring(meant.bits, job.place::integer, 1) = B'1' AND job.id IS NOT NULL
),
-- include lease/parts/keyed jobs=part
job AS MATERIALIZED (
    SELECT part.lease, part.entrypoint, part.worker, part.picked_at, part.place, part.id,
        coalesce(keyed.priority, part.priority, 0) AS priority,
        coalesce(part.attempts, 0) AS attempts, coalesce(part.created, part.picked_at) AS created,
        coalesce(part.execute_after, now()) AS execute_after, part.key AS dedupe_key, wish.status,
        wish.traceback, wish.delay
        -- [payloads
        , part.payload, part.headers
        -- payloads]
    FROM part
    JOIN wish USING (lease, place)
    LEFT JOIN keyed ON keyed.key = part.key AND keyed.job_id = part.id
),
after AS MATERIALIZED (
    SELECT mine.id, mine.done | meant.bits AS done
    FROM mine
    JOIN meant USING (id)
    WHERE bit_count(meant.bits) > 0
),
kept AS (
    UPDATE {lease_table} AS lease
    SET done = after.done, heartbeat = statement_timestamp()
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
    SELECT id, priority, least(attempts, 2147483646) + 1, created,
        (now() AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC',
        entrypoint, dedupe_key, payload,
        headers
    FROM job
    WHERE status = 'queued' AND delay <= interval '0'
),
later AS (
    INSERT INTO {deferred_table} (
        id, priority, attempts, created, execute_after, entrypoint, dedupe_key, payload, headers
    )
    SELECT id, priority, least(attempts, 2147483646) + 1, created,
        (now() AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC',
        entrypoint, dedupe_key, payload,
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
