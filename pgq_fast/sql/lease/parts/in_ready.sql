-- Where in ready the jobs of `wanted` (id) are: `in_ready` (place, id, dedupe_key).
--
-- Ready has no index by id, which every job would pay for. So this walks the distinct pairs of
-- entrypoint and priority, of which there are few as a rule, and probes each of them for each id.
-- Where that would be more work than to read the table, it reads the table.
--
-- The range instead of equality, the orders and `fan` keep walk and probes on the index, even with a
-- plan that was made while the table was empty; see compat/claim.sql.
pair AS (
    (
        SELECT ready.entrypoint, ~ready.priority AS rank
        FROM {ready_table} AS ready
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE EXISTS (SELECT FROM wanted)
        ORDER BY ready.entrypoint, ~ready.priority
        LIMIT 1
    )
    UNION ALL
    SELECT next.entrypoint, next.rank
    FROM pair
    CROSS JOIN LATERAL (
        SELECT ready.entrypoint, ~ready.priority AS rank
        FROM {ready_table} AS ready
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE (ready.entrypoint, ~ready.priority) > (pair.entrypoint, pair.rank)
        ORDER BY ready.entrypoint, ~ready.priority
        LIMIT 1
    ) AS next
),
walked AS MATERIALIZED (
    SELECT entrypoint, rank FROM pair LIMIT 1000
),
walk AS MATERIALIZED (
    SELECT count(*) < 1000 AND count(*) * (SELECT count(*) FROM wanted) <= 50000 AS pays
    FROM walked
),
in_ready AS MATERIALIZED (
    SELECT job.place, wanted.id, job.dedupe_key
    FROM wanted
    CROSS JOIN walked
    CROSS JOIN LATERAL (
        SELECT ready.ctid AS place, ready.dedupe_key
        FROM {ready_table} AS ready
        CROSS JOIN generate_series(1, (SELECT 1)) AS fan
        WHERE ready.entrypoint = walked.entrypoint AND ~ready.priority = walked.rank
            AND ready.id >= wanted.id AND ready.id <= wanted.id
        ORDER BY ready.id
        LIMIT (SELECT 1)
    ) AS job
    WHERE (SELECT pays FROM walk)
    UNION ALL
    SELECT ready.ctid, ready.id, ready.dedupe_key
    FROM {ready_table} AS ready
    JOIN wanted ON wanted.id = ready.id
    WHERE (SELECT NOT pays FROM walk)
),
