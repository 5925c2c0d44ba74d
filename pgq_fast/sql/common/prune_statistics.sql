-- Of the next $2 rows after the id $3, delete those that are older than $1. By id, as there is no
-- index by time.
WITH
next AS MATERIALIZED (
    SELECT id, created FROM {statistics_table}
    WHERE id > $3::bigint
    ORDER BY id
    LIMIT $2::bigint
),
gone AS (
    DELETE FROM {statistics_table}
    WHERE id = ANY(ARRAY(SELECT id FROM next WHERE created < $1::timestamptz))
    RETURNING id
)
SELECT (SELECT count(*) FROM gone) AS removed, count(*) AS seen, max(id) AS reached FROM next
