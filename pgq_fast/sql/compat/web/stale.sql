-- The $2 running jobs that have been without a heartbeat longest, and longer than $1.
SELECT id, priority, entrypoint, created, updated, queue_manager_id,
    extract(epoch FROM now() - heartbeat)::float8 AS silent
FROM {queue_table}
WHERE status = 'picked' AND heartbeat < now() - $1::interval
ORDER BY heartbeat
LIMIT $2::bigint
