-- Running jobs by entrypoint, of the $1 with the oldest heartbeats.
SELECT entrypoint, count(*) AS picked
FROM (
    SELECT entrypoint FROM {queue_table} WHERE status = 'picked' ORDER BY heartbeat LIMIT $1::bigint
) AS job
GROUP BY entrypoint
ORDER BY entrypoint
