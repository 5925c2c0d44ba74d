-- The workers that hold jobs and have not been silent for $1.
SELECT queue_manager_id AS worker, count(*) AS jobs
FROM {queue_table}
WHERE status = 'picked' AND heartbeat >= now() - $1::interval
GROUP BY queue_manager_id
ORDER BY queue_manager_id
