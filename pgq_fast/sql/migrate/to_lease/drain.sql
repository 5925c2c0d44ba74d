-- Keep the gate shut for $2; how many jobs workers hold, and how many of these by workers that have been
-- silent for $3.
WITH turn AS MATERIALIZED (
    UPDATE {migration_table}
    SET alive_until = clock_timestamp() + life, gate_until = clock_timestamp() + $2::interval
    WHERE token = $1::uuid AND alive_until > clock_timestamp()
    RETURNING token
)
SELECT EXISTS (SELECT FROM turn) AS mine, clock_timestamp() AS at, count(*) AS held,
    count(*) FILTER (WHERE heartbeat < now() - $3::interval) AS silent
FROM {queue_table}
WHERE status = 'picked'
