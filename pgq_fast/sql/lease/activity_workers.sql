-- Who holds the first $1 leases, which are all unless there are more.
SELECT worker, sum(jobs)::bigint AS jobs, count(*) AS leases,
    extract(epoch FROM now() - min(heartbeat))::float8 AS silent
FROM (
    SELECT worker, heartbeat, length(done) - bit_count(done) AS jobs
    FROM {lease_table}
    LIMIT $1::bigint
) AS lease
GROUP BY worker
ORDER BY jobs DESC, worker
