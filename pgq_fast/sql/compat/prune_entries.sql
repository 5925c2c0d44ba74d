-- Delete up to $2 log entries that are older than $1, beginning with those of $3 (NULL: with the
-- oldest). None is lost to the statistics: what they do not count yet stays.
WITH
old AS MATERIALIZED (
    SELECT id, created
    FROM {queue_table_log}
    WHERE created < $1::timestamptz AND created >= coalesce($3::timestamptz, '-infinity')
        AND aggregated IS NOT FALSE
    ORDER BY created
    LIMIT $2::bigint
),
gone AS (
    DELETE FROM {queue_table_log} WHERE id = ANY(ARRAY(SELECT id FROM old)) RETURNING id
)
SELECT (SELECT count(*) FROM gone) AS removed, count(*) AS seen, max(created) AS reached FROM old
