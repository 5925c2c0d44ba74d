-- As prune_entries.sql, for batches that ended before $1. `removed` are the entries of their jobs.
WITH
old AS MATERIALIZED (
    SELECT id, created
    FROM {log_batches_table}
    WHERE created < $1::timestamptz AND created >= coalesce($3::timestamptz, '-infinity')
        AND aggregated
    ORDER BY created
    LIMIT $2::bigint
),
gone AS (
    DELETE FROM {log_batches_table} WHERE id = ANY(ARRAY(SELECT id FROM old))
    RETURNING jobs::bigint * (1 + (picked_at IS NOT NULL)::int + (queued_at IS NOT NULL)::int)
        AS entries
)
SELECT (SELECT coalesce(sum(entries), 0)::bigint FROM gone) AS removed, count(*) AS seen,
    max(created) AS reached
FROM old
