-- Ids of held jobs: `held` (id). The queue has no index for them, so they are looked for where they
-- are: among the <look> jobs with the lowest ids, since a held job stays while others go, and among
-- the <look> failures that the log was told of last.
--
-- The range instead of equality keeps the order by status, which makes this a walk of the index from
-- its end.
oldest AS MATERIALIZED (
    SELECT id, status FROM {queue_table} ORDER BY id LIMIT <look>::bigint
),
failure AS MATERIALIZED (
    SELECT job_id
    FROM {queue_table_log}
    WHERE status >= 'failed' AND status <= 'failed'
    ORDER BY status DESC
    LIMIT <look>::bigint
),
held AS MATERIALIZED (
    SELECT id FROM oldest WHERE status = 'failed'
    UNION
    SELECT job.id
    FROM (SELECT DISTINCT job_id FROM failure) AS failure
    CROSS JOIN LATERAL (
        SELECT job.id FROM {queue_table} AS job
        WHERE job.id = failure.job_id AND job.status = 'failed'
        LIMIT 1
    ) AS job
),
-- Whether there may be others.
cut AS (
    SELECT (SELECT count(*) FROM oldest) >= <look>::bigint
        AND (SELECT count(*) FROM failure) >= <look>::bigint AS cut
),
