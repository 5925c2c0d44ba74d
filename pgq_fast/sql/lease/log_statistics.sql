-- The latest statistics: $1 rows (NULL: all) of the time $2 (NULL: ever). With what live jobs say,
-- which is in the log without an id and becomes part of the statistics when they end.
WITH live AS MATERIALIZED (
    SELECT count(*) AS count, date_trunc('sec', created) AS created, entrypoint, priority, status
    FROM {queue_table_log}
    WHERE id IS NULL AND ($2::interval IS NULL OR created > now() - $2::interval)
    GROUP BY date_trunc('sec', created), entrypoint, priority, status
)
SELECT coalesce(kept.count, 0) + coalesce(live.count, 0) AS count, created, entrypoint, priority,
    status::text AS status
FROM (
    SELECT id, count, created, entrypoint, priority, status
    FROM {statistics_table}
    WHERE $2::interval IS NULL OR created > now() - $2::interval
) AS kept
FULL JOIN live USING (created, entrypoint, priority, status)
WHERE $2::interval IS NULL OR created > now() - $2::interval
ORDER BY created DESC, kept.id DESC
LIMIT $1::bigint
