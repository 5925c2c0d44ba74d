-- Give the queued jobs of keys $1 the priority that dedupe has for them; the keys of those that were
-- found queued.
--
-- A job that is in a lease takes its priority from dedupe when it comes back. For `fan` see
-- enqueue_many.sql.
WITH RECURSIVE
-- Locked in their order and before the jobs, as everybody does it; see parts/keyed.sql.
wanted AS MATERIALIZED (
    SELECT taken.*
    FROM (SELECT key FROM unnest($1::text[]) AS argument (key) ORDER BY key) AS argument
    CROSS JOIN LATERAL (
        SELECT taken.key, taken.job_id, taken.entrypoint, taken.priority
        FROM {dedupe_table} AS taken
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE taken.key >= argument.key AND taken.key <= argument.key
        ORDER BY taken.key
        LIMIT 1
        FOR UPDATE OF taken
    ) AS taken
),
-- The priorities that occur below the wanted ones: there is no index by id, so each is looked at.
pair (entrypoint, inverse) AS (
    SELECT entrypoint, min(~priority)
    FROM wanted
    GROUP BY entrypoint
    UNION ALL
    SELECT pair.entrypoint, next.inverse
    FROM pair
    CROSS JOIN LATERAL (
        SELECT ~job.priority AS inverse
        FROM {ready_table} AS job
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE (job.entrypoint, ~job.priority) > (pair.entrypoint, pair.inverse)
            AND job.entrypoint <= pair.entrypoint
        ORDER BY job.entrypoint, ~job.priority, job.id
        LIMIT 1
    ) AS next
),
-- A row that is locked is being claimed or taken away, so there is no need to wait for it.
here AS MATERIALIZED (
    SELECT wanted.key, wanted.priority, here.place
    FROM wanted
    JOIN pair ON pair.entrypoint = wanted.entrypoint AND pair.inverse >= ~wanted.priority
    CROSS JOIN LATERAL (
        SELECT job.ctid AS place
        FROM {ready_table} AS job
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE (job.entrypoint, ~job.priority, job.id)
                >= (wanted.entrypoint, pair.inverse, wanted.job_id)
            AND (job.entrypoint, ~job.priority, job.id)
                <= (wanted.entrypoint, pair.inverse, wanted.job_id)
        ORDER BY job.entrypoint, ~job.priority, job.id
        LIMIT 1
        FOR UPDATE OF job SKIP LOCKED
    ) AS here
),
raised_here AS (
    UPDATE {ready_table} AS job
    SET priority = here.priority
    FROM here
    WHERE job.ctid = here.place
),
-- One that is locked may be on its way to the other table, where the next look finds it: wait.
raised_there AS (
    UPDATE {deferred_table} AS job
    SET priority = wanted.priority
    FROM wanted
    WHERE job.id = wanted.job_id
        AND job.entrypoint = wanted.entrypoint
        AND NOT EXISTS (SELECT FROM here WHERE here.key = wanted.key)
    RETURNING wanted.key
)
SELECT key FROM here
UNION ALL
SELECT key FROM raised_there
