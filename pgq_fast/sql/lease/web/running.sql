-- Running jobs by entrypoint, of the $1 leases that were made first.
SELECT entrypoint, sum(length(done) - bit_count(done))::bigint AS picked
FROM (SELECT entrypoint, done FROM {lease_table} ORDER BY id LIMIT $1::bigint) AS lease
GROUP BY entrypoint
ORDER BY entrypoint
