-- With what live jobs say; see log_statistics.sql.
SELECT entrypoint, status::text AS status, sum(count)::bigint AS total_count
FROM (
    SELECT entrypoint, status, count
    FROM {statistics_table}
    WHERE $1::interval IS NULL OR created > now() - $1::interval
    UNION ALL
    SELECT entrypoint, status, count(*)
    FROM {queue_table_log}
    WHERE id IS NULL
        AND ($1::interval IS NULL OR date_trunc('sec', created) > now() - $1::interval)
    GROUP BY entrypoint, status
) AS bucket
GROUP BY entrypoint, bucket.status
ORDER BY entrypoint, status
