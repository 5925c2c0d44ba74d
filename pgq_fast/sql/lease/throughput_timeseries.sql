-- With what live jobs say; see log_statistics.sql.
SELECT bucket, entrypoint, status::text AS status, sum(count)::bigint AS count
FROM (
    SELECT date_trunc('minute', created) AS bucket, entrypoint, status, count
    FROM {statistics_table}
    WHERE created > now() - $1::interval
    UNION ALL
    SELECT date_trunc('minute', created), entrypoint, status, count(*)
    FROM {queue_table_log}
    WHERE id IS NULL AND date_trunc('sec', created) > now() - $1::interval
    GROUP BY date_trunc('minute', created), entrypoint, status
) AS counted
GROUP BY bucket, entrypoint, counted.status
ORDER BY bucket
