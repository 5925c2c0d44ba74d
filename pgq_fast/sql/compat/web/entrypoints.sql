-- The $2 first entrypoints with queued jobs, their jobs by looking at $1 at most of each kind: as
-- many or more then.
WITH RECURSIVE name AS (
    (
        SELECT entrypoint, 1 AS n FROM {queue_table}
        WHERE status = 'queued'
        ORDER BY entrypoint
        LIMIT 1
    )
    UNION ALL
    SELECT next.entrypoint, name.n + 1
    FROM name
    CROSS JOIN LATERAL (
        SELECT entrypoint FROM {queue_table}
        WHERE status = 'queued' AND entrypoint > name.entrypoint
        ORDER BY entrypoint
        LIMIT 1
    ) AS next
    WHERE name.n < $2::integer
)
SELECT name.entrypoint, (
        SELECT count(*)
        FROM (
            SELECT FROM {queue_table} AS job
            WHERE job.status = 'queued' AND job.entrypoint = name.entrypoint
                AND job.execute_after <= now()
            LIMIT $1::bigint
        ) AS job
    ) AS queued, (
        SELECT count(*)
        FROM (
            SELECT FROM {queue_table} AS job
            WHERE job.status = 'queued' AND job.entrypoint = name.entrypoint
                AND job.execute_after > now()
            LIMIT $1::bigint
        ) AS job
    ) AS deferred, (
        SELECT extract(epoch FROM now() - execute_after)::float8
        FROM (
            SELECT execute_after FROM {queue_table} AS job
            WHERE job.status = 'queued' AND job.entrypoint = name.entrypoint
                AND job.execute_after <= now()
            ORDER BY job.entrypoint, job.execute_after
            LIMIT 1
        ) AS job
    ) AS waited
FROM name
ORDER BY name.n
