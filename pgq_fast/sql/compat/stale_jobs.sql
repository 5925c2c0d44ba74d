-- The $2 picked jobs that have been without a heartbeat longest, and longer than $1.
SELECT id, priority, queue_manager_id, created, updated, heartbeat, execute_after,
    status::text AS status, entrypoint,
    extract(epoch FROM now() - heartbeat)::float8 AS seconds_since_heartbeat
FROM {queue_table}
WHERE status = 'picked' AND heartbeat < now() - $1::interval
ORDER BY heartbeat
LIMIT $2::bigint
