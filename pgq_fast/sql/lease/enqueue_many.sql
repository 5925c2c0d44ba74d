-- Enqueue jobs given as columns; for each that is in the queue now, its place among the arguments and
-- its id.
--
-- Each `fan` is one row that the planner takes for a thousand: without it, a plan that was made while
-- the tables were empty or the arguments unknown would read whole tables or join row by row.
WITH
-- Materialized: nextval() must run once a row though the rows are read more than once.
input AS MATERIALIZED (
    SELECT nextval('{ids_sequence}') AS id, job.*
    FROM unnest($1::int[], $2::text[], $3::bytea[], $4::interval[], $5::text[], $6::text[]::jsonb[])
        WITH ORDINALITY
        AS job (priority, entrypoint, payload, delay, dedupe_key, headers, place)
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
),
-- [keyed
keyed AS (
    INSERT INTO {dedupe_table} AS taken (key, job_id, entrypoint, priority)
    SELECT dedupe_key, id, entrypoint, priority
    FROM input
    WHERE dedupe_key IS NOT NULL
    -- By key, so that two lists with keys in common wait for each other and do not deadlock; of a key
    -- that is there twice, the first one is first.
    ORDER BY dedupe_key, place
    -- [skip
    ON CONFLICT (key) DO NOTHING
    -- skip]
    -- [update_priority
    ON CONFLICT (key) DO UPDATE SET priority = greatest(taken.priority, excluded.priority)
    -- update_priority]
    RETURNING key, job_id, entrypoint, priority
),
-- keyed]
job AS (
    SELECT *
    FROM input
    -- [keyed
    WHERE dedupe_key IS NULL OR id IN (SELECT job_id FROM keyed)
    -- keyed]
),
stored_now AS (
    INSERT INTO {ready_table}
        (id, priority, entrypoint, payload, execute_after, dedupe_key, headers)
    SELECT id, priority, entrypoint, payload, now() + delay, dedupe_key, headers
    FROM job
    -- [deferred
    WHERE delay <= interval '0'
    -- deferred]
    RETURNING id
),
-- [deferred
stored_later AS (
    INSERT INTO {deferred_table}
        (id, priority, entrypoint, payload, execute_after, dedupe_key, headers)
    SELECT id, priority, entrypoint, payload, now() + delay, dedupe_key, headers
    FROM job
    WHERE delay > interval '0'
    RETURNING id
),
-- deferred]
-- [update_priority
-- The priorities that this statement found, which say where in the index those jobs are.
before AS MATERIALIZED (
    SELECT input.dedupe_key AS key, taken.job_id, taken.priority
    FROM input
    CROSS JOIN LATERAL (
        SELECT taken.job_id, taken.priority
        FROM {dedupe_table} AS taken
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE taken.key >= input.dedupe_key AND taken.key <= input.dedupe_key
        ORDER BY taken.key
        LIMIT 1
    ) AS taken
),
-- Not to wait for a lock of a row whose job is being claimed: what has been said to dedupe above is
-- enough for that, and the claim may wait for the same keys.
raising AS MATERIALIZED (
    SELECT here.place, keyed.priority
    FROM keyed
    JOIN before ON before.job_id = keyed.job_id AND before.priority < keyed.priority
    CROSS JOIN LATERAL (
        SELECT job.ctid AS place
        FROM {ready_table} AS job
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE (job.entrypoint, ~job.priority, job.id)
                >= (keyed.entrypoint, ~before.priority, keyed.job_id)
            AND (job.entrypoint, ~job.priority, job.id)
                <= (keyed.entrypoint, ~before.priority, keyed.job_id)
        ORDER BY job.entrypoint, ~job.priority, job.id
        LIMIT 1
        FOR UPDATE OF job SKIP LOCKED
    ) AS here
),
raised AS (
    UPDATE {ready_table} AS job
    SET priority = raising.priority
    FROM raising
    WHERE job.ctid = raising.place
    RETURNING job.id
),
-- update_priority]
stored AS (
    SELECT id FROM stored_now
    -- [deferred
    UNION ALL
    SELECT id FROM stored_later
    -- deferred]
)
-- [update_priority
-- And whether the job has another priority than its key and must be looked for.
SELECT
    input.place,
    coalesce(keyed.job_id, stored.id) AS id,
    stored.id IS NULL
        AND raised.id IS NULL
        AND before.priority IS DISTINCT FROM keyed.priority AS missed
FROM input
LEFT JOIN stored USING (id)
LEFT JOIN keyed ON keyed.key = input.dedupe_key
LEFT JOIN before ON before.job_id = keyed.job_id
LEFT JOIN raised ON raised.id = keyed.job_id
-- update_priority]
-- [plain
SELECT input.place, stored.id
FROM input
JOIN stored USING (id)
-- plain]
