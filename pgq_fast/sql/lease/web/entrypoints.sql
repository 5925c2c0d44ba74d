-- The $2 first entrypoints with queued jobs, their jobs by looking at $1 at most of each kind: as
-- many or more then. Up to 500 pairs of entrypoint and priority are looked at for how long the first
-- in line have waited.
WITH RECURSIVE
-- include lease/web/parts/heads names=500
name AS (
    SELECT least(
        (SELECT entrypoint FROM {ready_table} ORDER BY entrypoint LIMIT 1),
        (SELECT entrypoint FROM {deferred_table} ORDER BY entrypoint LIMIT 1)
    ) AS entrypoint, 1 AS n
    UNION ALL
    SELECT least(
        (
            SELECT entrypoint FROM {ready_table} WHERE entrypoint > name.entrypoint
            ORDER BY entrypoint LIMIT 1
        ),
        (
            SELECT entrypoint FROM {deferred_table} WHERE entrypoint > name.entrypoint
            ORDER BY entrypoint LIMIT 1
        )
    ), name.n + 1
    FROM name
    WHERE name.n < $2::integer AND name.entrypoint IS NOT NULL
),
waiting AS (
    SELECT entrypoint, extract(epoch FROM now() - min(since))::float8 AS waited
    FROM head
    GROUP BY entrypoint
)
SELECT name.entrypoint, (
        SELECT count(*)
        FROM (
            SELECT FROM {ready_table} AS job WHERE job.entrypoint = name.entrypoint
            LIMIT $1::bigint
        ) AS job
    ) AS queued, (
        SELECT count(*)
        FROM (
            SELECT FROM {deferred_table} AS job WHERE job.entrypoint = name.entrypoint
            LIMIT $1::bigint
        ) AS job
    ) AS deferred, waiting.waited
FROM name
LEFT JOIN waiting ON waiting.entrypoint = name.entrypoint
WHERE name.entrypoint IS NOT NULL
ORDER BY name.n
