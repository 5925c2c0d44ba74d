SELECT date_trunc('minute', created) AS bucket, entrypoint, status::text AS status,
    sum(count)::bigint AS count
FROM {statistics_table}
WHERE created > now() - $1::interval
GROUP BY bucket, entrypoint, status
ORDER BY bucket
