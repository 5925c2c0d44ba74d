-- The workers that hold jobs and have not been silent for $1.
SELECT worker, sum(cardinality(ids) - bit_count(done))::bigint AS jobs
FROM {lease_table}
WHERE heartbeat >= now() - $1::interval AND bit_count(done) < cardinality(ids)
GROUP BY worker
ORDER BY worker
