SELECT entrypoint, status::text AS status, sum(count)::bigint AS total_count
FROM {statistics_table}
WHERE $1::interval IS NULL OR created > now() - $1::interval
GROUP BY entrypoint, status
ORDER BY entrypoint, status
