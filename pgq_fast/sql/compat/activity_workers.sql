-- Who holds the $1 picked jobs that have been without a heartbeat longest, which are all unless there
-- are more.
SELECT queue_manager_id AS worker, count(*) AS jobs, NULL::bigint AS leases,
    extract(epoch FROM now() - min(heartbeat))::float8 AS silent
FROM (
    SELECT queue_manager_id, heartbeat
    FROM {queue_table}
    WHERE status = 'picked'
    ORDER BY heartbeat
    LIMIT $1::bigint
) AS job
WHERE queue_manager_id IS NOT NULL
GROUP BY queue_manager_id
ORDER BY jobs DESC, queue_manager_id
