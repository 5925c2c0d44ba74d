-- Claim up to $1 queued jobs of the entrypoints $2 for the worker $3, best priority first; within a
-- priority a job of each entrypoint in turn, so that a flood of one does not hold up the others, and
-- of each entrypoint the oldest first. The payloads may reach $4 bytes; one job is always taken. Of each
-- entrypoint no more than $5 jobs are looked at: where it has more, nothing is taken that would come
-- after those.
--
-- One row: the jobs as a value of their own, whether jobs were left that could have been taken, whether
-- an entrypoint may have more than were looked at, and the size of the table.
-- For entrypoints without a concurrency limit; claim_limited.sql has the rest.
--
-- Parameters stand in subqueries so that a plan for their values promises no more than a plan for
-- any: with one that does, PostgreSQL would plan each execution anew, which takes longer than to
-- claim a few jobs.
WITH
-- [relaxed
-- The commit of a claim does not wait for the disk. A crash of the server that loses it leaves the
-- jobs queued, to be claimed again. Local to this statement's own transaction.
relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
),
-- relaxed]
-- [ending
-- End the jobs $6 in the same round trip; see finish.sql. The owner is compared so that its index is
-- no choice: a worker may hold many more jobs than it ends here.
ended AS (
    DELETE FROM {queue_table}
    WHERE id = ANY($6::text::bigint[]) AND queue_manager_id IS NOT DISTINCT FROM $3::uuid
    RETURNING id, entrypoint, priority
),
-- ending]
-- [budget
-- $7: the most jobs that this worker may hold.
room AS MATERIALIZED (
    SELECT greatest(least($1::bigint, $7::bigint - count(*)), 0) AS jobs
    FROM {queue_table}
    WHERE queue_manager_id = $3::uuid AND entrypoint = ANY((SELECT $2::text[])::text[])
),
-- budget]
-- One ordered index scan an entrypoint. A job that another worker is about to claim is skipped, so
-- that workers neither wait for each other nor claim the same job.
--
-- Statistics of a queue are nearly always wrong: analysed while it was empty, filled a moment later.
-- Two things hold the plan whatever they say. The entrypoint is compared as a range and heads the
-- order, so that one index only delivers the rows sorted. And `fan`, one row that the planner takes
-- for a thousand, makes sorting look as dear as it is on a long queue. And the number that no claim
-- exceeds keeps what is above it cheap in the planner's eyes: from a certain cost on PostgreSQL
-- compiles a statement, which takes many times as long as to run this one.
next AS (
    SELECT job.id, job.priority, job.bytes, wanted.entrypoint
    FROM unnest((SELECT $2::text[])) AS wanted (entrypoint)
    CROSS JOIN LATERAL (
        SELECT *
        FROM (
            SELECT queue.id, queue.priority,
                coalesce(octet_length(queue.payload), 0)
                    + coalesce(pg_column_size(queue.headers), 0) AS bytes
            FROM {queue_table} AS queue
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE queue.entrypoint >= wanted.entrypoint AND queue.entrypoint <= wanted.entrypoint
                AND queue.status = 'queued' AND queue.execute_after < now()
            -- [ordered
            ORDER BY queue.entrypoint, queue.priority DESC, queue.id
            -- ordered]
            -- [due
            -- For a queue of deferred jobs, which the scan above would read for the few due ones.
            ORDER BY queue.entrypoint, queue.execute_after
            -- due]
            LIMIT (SELECT $5::bigint)
            FOR UPDATE OF queue SKIP LOCKED
        ) AS line
        LIMIT 5000
    ) AS job
),
-- [rescue
-- Picked jobs whose worker has not been heard of for $6: it died, or lost its connection.
stale AS (
    SELECT id, priority, entrypoint,
        coalesce(octet_length(payload), 0) + coalesce(pg_column_size(headers), 0) AS bytes
    FROM {queue_table}
    WHERE status = 'picked' AND heartbeat < now() - (SELECT $6::interval)
        AND entrypoint = ANY((SELECT $2::text[])::text[]) AND execute_after < now()
    ORDER BY priority DESC, id
    LIMIT (SELECT $1::bigint)
    FOR UPDATE SKIP LOCKED
),
-- rescue]
-- Priority and turn as one number, which is quick to compare: with the rescued ones, they are not more
-- than 10,000 jobs.
candidate AS (
    SELECT id, priority, bytes, entrypoint, aside,
        (~priority)::bigint * 16384
            + row_number() OVER (PARTITION BY entrypoint, priority ORDER BY id) AS turn
    FROM (
        SELECT id, priority, bytes, entrypoint, false AS aside FROM next
        -- [rescue
        UNION ALL
        SELECT id, priority, bytes, entrypoint, true FROM stale
        -- rescue]
    ) AS job
),
-- include compat/parts/known
best AS (
    SELECT id
    FROM (
        SELECT id, turn, sum(bytes) OVER (ORDER BY turn, id ROWS UNBOUNDED PRECEDING) - bytes AS before
        FROM known
    ) AS job
    WHERE before < (SELECT $4::bigint)
    ORDER BY turn, id
    -- [fixed
    LIMIT (SELECT $1::bigint)
    -- fixed]
    -- [budget
    LIMIT (SELECT jobs FROM room)
    -- budget]
),
-- The array keeps this an index scan by id whatever the planner believes about the sizes.
-- A rescued job keeps the seat that it holds; a queued one holds none.
claimed AS (
    UPDATE {queue_table}
    SET status = 'picked', updated = statement_timestamp(), heartbeat = statement_timestamp(),
        queue_manager_id = $3::uuid,
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
    -- [ending
    SELECT id, 'successful'::{queue_status_type}, entrypoint, priority FROM ended
    UNION ALL
    -- ending]
    SELECT id, 'picked', entrypoint, priority FROM claimed
)
-- The fields in the order in which the codec reads them: fixed lengths first. What does not differ
-- from job to job is not among them. Text is sent as UTF-8 whatever the client's encoding.
SELECT string_agg(record_send(job), ''::bytea ORDER BY job.priority DESC, job.id) AS jobs,
    (SELECT count(*) FROM known) > count(*) AS large,
    -- [all
    false
    -- all]
    -- [some
    (SELECT turn FROM horizon) IS NOT NULL
    -- some]
    AS cut,
    pg_relation_size('{queue_table}') AS size
FROM (
    SELECT id::bigint, priority, attempts, created, execute_after, updated, slot::bigint,
        convert_to(entrypoint, 'UTF8') AS entrypoint, payload,
        convert_to(headers::text, 'UTF8') AS headers
    FROM claimed
) AS job
