-- Running jobs without a heartbeat for longer than $1, $2 at most, of 1000 leases at most.
WITH lease AS MATERIALIZED (
    SELECT id, done
    FROM (SELECT id, done, heartbeat FROM {lease_table} ORDER BY id LIMIT 1000) AS lease
    WHERE heartbeat < now() - $1::interval
    ORDER BY heartbeat, id
    LIMIT $2::bigint
)
SELECT job.id, coalesce(job.priority, 0) AS priority, whole.entrypoint, job.created,
    whole.picked_at AS updated, whole.worker AS queue_manager_id,
    extract(epoch FROM now() - whole.heartbeat)::float8 AS silent
FROM (
    -- As many leases as it takes for that many jobs.
    SELECT id
    FROM (
        SELECT id, sum(length(done) - bit_count(done)) OVER (ORDER BY id)
            - (length(done) - bit_count(done)) AS before
        FROM lease
    ) AS lease
    WHERE before < $2::bigint
) AS lease
JOIN {lease_table} AS whole ON whole.id = lease.id
CROSS JOIN LATERAL unnest(whole.ids, whole.priorities, whole.created)
    WITH ORDINALITY AS job (id, priority, created, place)
WHERE substring(whole.done, job.place::integer, 1) = B'0' AND job.id IS NOT NULL
ORDER BY whole.heartbeat, job.id
LIMIT $2::bigint
