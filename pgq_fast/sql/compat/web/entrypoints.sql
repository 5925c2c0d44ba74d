-- The $2 first entrypoints with queued jobs, their jobs by looking at $1 at most of each kind: as
-- many or more then.
WITH RECURSIVE
-- include compat/web/parts/name first='' most=$2
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
