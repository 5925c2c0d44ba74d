-- Enqueue jobs given as columns. A row for each with its place among the arguments and its id, NULL
-- where its key is taken.
--
-- Rows are matched by IN only, which takes a hash table whatever the planner believes of arguments
-- that it does not know; joined, they might be compared each with each.
WITH
-- Materialized: nextval() must run once a row though the rows are read more than once.
input AS MATERIALIZED (
    SELECT nextval('{ids_sequence}') AS id, job.*
    FROM unnest($1::int[], $2::text[], $3::bytea[], $4::interval[], $5::text[], $6::text[]::jsonb[])
        WITH ORDINALITY
        AS job (priority, entrypoint, payload, delay, dedupe_key, headers, place)
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
    RETURNING key, job_id, priority
),
-- keyed]
job AS (
    SELECT *
    FROM input
    -- [conflicts
    WHERE dedupe_key IS NULL OR id IN (SELECT job_id FROM keyed)
    -- conflicts]
),
stored_now AS (
    INSERT INTO {ready_table}
        (id, priority, entrypoint, payload, execute_after, dedupe_key, headers)
    SELECT id, priority, entrypoint, payload,
        (now() AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC',
        dedupe_key, headers
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
    SELECT id, priority, entrypoint, payload,
        (now() AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC',
        dedupe_key, headers
    FROM job
    WHERE delay > interval '0'
    RETURNING id
),
-- deferred]
stored AS (
    SELECT id FROM stored_now
    -- [deferred
    UNION ALL
    SELECT id FROM stored_later
    -- deferred]
)
-- [update_priority
-- What this statement sees of the keys. The priority says where in the index of {ready_table} the job
-- is. `fan`, one row that the planner takes for a thousand, keeps this a scan of the index, whatever
-- the statistics say.
, before AS MATERIALIZED (
    SELECT taken.job_id, taken.entrypoint, taken.priority, input.priority AS wanted
    FROM input
    CROSS JOIN LATERAL (
        SELECT taken.job_id, taken.entrypoint, taken.priority
        FROM {dedupe_table} AS taken
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE taken.key >= input.dedupe_key AND taken.key <= input.dedupe_key
        ORDER BY taken.key
        LIMIT 1
    ) AS taken
),
-- Does not wait for rows that are locked: those are being claimed, and what dedupe says is enough then.
raising AS MATERIALIZED (
    SELECT here.place, before.wanted
    FROM before
    CROSS JOIN LATERAL (
        SELECT job.ctid AS place
        FROM {ready_table} AS job
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE (job.entrypoint, ~job.priority, job.id)
                >= (before.entrypoint, ~before.priority, before.job_id)
            AND (job.entrypoint, ~job.priority, job.id)
                <= (before.entrypoint, ~before.priority, before.job_id)
        ORDER BY job.entrypoint, ~job.priority, job.id
        LIMIT 1
        FOR UPDATE OF job SKIP LOCKED
    ) AS here
    WHERE before.wanted > before.priority
        -- Not before all keys are locked: a job would be kept from workers while this waits for one.
        AND (SELECT count(*) FROM keyed) > 0
),
raised AS (
    UPDATE {ready_table} AS job
    SET priority = raising.wanted
    FROM raising
    WHERE job.ctid = raising.place
    RETURNING job.id
)
-- update_priority]
SELECT place, CASE WHEN id IN (SELECT id FROM stored) THEN id END AS id
    -- [update_priority
    , NULL::text AS key, false AS missed
    -- update_priority]
FROM input
-- [update_priority
-- And a row with place 0 for each key that was taken: the job that has it, and whether that must be
-- looked for, as its priority is another one now and it was not where this statement looked.
UNION ALL
SELECT 0, job_id, key,
    job_id NOT IN (SELECT id FROM raised)
        AND (job_id, priority) NOT IN (SELECT job_id, priority FROM before)
FROM keyed
WHERE job_id NOT IN (SELECT id FROM stored)
-- update_priority]
