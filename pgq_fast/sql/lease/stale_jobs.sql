-- The $2 picked jobs that have been without a heartbeat longest, and longer than $1.
SELECT job.id, job.priority, lease.worker AS queue_manager_id, job.created,
    lease.picked_at AS updated, lease.heartbeat, job.execute_after, 'picked' AS status,
    lease.entrypoint, extract(epoch FROM now() - lease.heartbeat)::float8
        AS seconds_since_heartbeat
FROM {lease_table} AS lease
CROSS JOIN LATERAL unnest(lease.ids, lease.priorities, lease.created, lease.execute_after)
    WITH ORDINALITY AS job (id, priority, created, execute_after, place)
WHERE lease.heartbeat < now() - $1::interval
    AND get_bit(lease.done, job.place::integer - 1) = 0
ORDER BY lease.heartbeat, job.id
LIMIT $2::bigint
