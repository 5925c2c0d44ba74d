-- Not through the view, which would unpack the payloads of leases.
SELECT count(*) AS count, priority, entrypoint, status::text AS status
FROM (
    SELECT priority, entrypoint, 'queued'::{queue_status_type} AS status FROM {ready_table}
    UNION ALL
    SELECT priority, entrypoint, 'queued' FROM {deferred_table}
    UNION ALL
    SELECT job.priority, lease.entrypoint, 'picked'
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(lease.priorities) WITH ORDINALITY AS job (priority, place)
    WHERE get_bit(lease.done, job.place::integer - 1) = 0
    UNION ALL
    SELECT priority, entrypoint, 'failed' FROM {held_table}
) AS job
GROUP BY entrypoint, priority, job.status
ORDER BY count, entrypoint, priority, status
