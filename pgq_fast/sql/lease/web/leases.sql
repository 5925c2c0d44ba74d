-- The $2 leases without a heartbeat for longest, of the $1 that were made first.
SELECT id, worker AS queue_manager_id, entrypoint, slot, picked_at,
    extract(epoch FROM now() - heartbeat)::float8 AS silent, length(done) AS claimed,
    (length(done) - bit_count(done))::bigint AS jobs
FROM (
    SELECT id, worker, entrypoint, slot, picked_at, heartbeat, done
    FROM {lease_table}
    ORDER BY id
    LIMIT $1::bigint
) AS lease
ORDER BY heartbeat, id
LIMIT $2::bigint
