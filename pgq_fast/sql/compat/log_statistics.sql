-- The latest statistics: $1 rows (NULL: all) of the time $2 (NULL: ever).
SELECT count, created, entrypoint, priority, status::text AS status
FROM {statistics_table}
WHERE $2::interval IS NULL OR created > now() - $2::interval
ORDER BY id DESC
LIMIT $1::bigint
