-- How many jobs there are, each number by looking at $1 at most: as many or more then. $2 entrypoints
-- are looked at for queued jobs.
WITH RECURSIVE
-- include compat/web/parts/name first='' most=$2
,
-- include compat/web/parts/held look=$1
counted AS (
    SELECT
        (
            SELECT count(*)
            FROM (
                SELECT
                FROM name
                CROSS JOIN LATERAL (
                    SELECT FROM {queue_table} AS job
                    WHERE job.status = 'queued' AND job.entrypoint = name.entrypoint
                        AND job.execute_after <= now()
                    LIMIT $1::bigint
                ) AS job
                LIMIT $1::bigint
            ) AS job
        ) AS queued,
        (
            SELECT count(*)
            FROM (
                SELECT
                FROM name
                CROSS JOIN LATERAL (
                    SELECT FROM {queue_table} AS job
                    WHERE job.status = 'queued' AND job.entrypoint = name.entrypoint
                        AND job.execute_after > now()
                    LIMIT $1::bigint
                ) AS job
                LIMIT $1::bigint
            ) AS job
        ) AS deferred,
        (
            SELECT count(*)
            FROM (
                SELECT FROM {queue_table}
                WHERE status = 'picked'
                ORDER BY heartbeat
                LIMIT $1::bigint
            ) AS job
        ) AS picked,
        (SELECT count(*) FROM held) AS failed,
        (SELECT cut FROM cut) AS failed_cut,
        (SELECT count(*) FROM name) >= $2::integer AS names_cut,
        -- How long the job that could run has waited since, that waits longest.
        (
            SELECT extract(epoch FROM now() - min(job.execute_after))::float8
            FROM name
            CROSS JOIN LATERAL (
                SELECT execute_after FROM {queue_table} AS job
                WHERE job.status = 'queued' AND job.entrypoint = name.entrypoint
                    AND job.execute_after <= now()
                ORDER BY job.entrypoint, job.execute_after
                LIMIT 1
            ) AS job
        ) AS waited
)
SELECT * FROM counted
