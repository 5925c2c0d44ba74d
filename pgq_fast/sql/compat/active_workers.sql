SELECT queue_manager_id, count(*) AS active_jobs, min(heartbeat) AS oldest_heartbeat,
    max(heartbeat) AS newest_heartbeat, array_agg(DISTINCT entrypoint) AS entrypoints
FROM {queue_table}
WHERE status = 'picked' AND queue_manager_id IS NOT NULL
GROUP BY queue_manager_id
ORDER BY queue_manager_id
