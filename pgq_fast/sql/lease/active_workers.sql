SELECT worker AS queue_manager_id, sum(length(done) - bit_count(done))::bigint AS active_jobs,
    min(heartbeat) AS oldest_heartbeat, max(heartbeat) AS newest_heartbeat,
    array_agg(DISTINCT entrypoint) AS entrypoints
FROM {lease_table}
WHERE bit_count(done) < length(done)
GROUP BY worker
ORDER BY worker
