-- Workers with leases, of the $2 leases that were made first: $1 workers at most.
SELECT worker AS queue_manager_id, sum(length(done) - bit_count(done))::bigint AS jobs,
    count(*) AS leases, min(picked_at) AS since,
    extract(epoch FROM now() - min(heartbeat))::float8 AS silent,
    array_to_json((array_agg(DISTINCT entrypoint))[:20])::text AS entrypoints
FROM (
    SELECT worker, done, picked_at, heartbeat, entrypoint
    FROM {lease_table}
    ORDER BY id
    LIMIT $2::bigint
) AS lease
GROUP BY worker
ORDER BY worker
LIMIT $1::bigint
