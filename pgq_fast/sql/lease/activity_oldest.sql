-- The ready job with the lowest id of each entrypoint and priority, $1 of them at most: one probe of an
-- index for each, however many jobs there are.
WITH RECURSIVE head AS (
    (
        SELECT entrypoint, (~ priority) AS place, created
        FROM {ready_table}
        ORDER BY entrypoint, (~ priority), id
        LIMIT 1
    )
    UNION ALL
    SELECT next.entrypoint, next.place, next.created
    FROM head
    CROSS JOIN LATERAL (
        SELECT entrypoint, (~ priority) AS place, created
        FROM {ready_table}
        WHERE (entrypoint, (~ priority)) > (head.entrypoint, head.place)
        ORDER BY entrypoint, (~ priority), id
        LIMIT 1
    ) AS next
)
-- No ORDER BY around the recursion: it ends as soon as the limit is reached.
SELECT entrypoint, min(created) AS created, true AS is_due,
    extract(epoch FROM now() - min(created))::float8 AS age
FROM (SELECT * FROM head LIMIT $1::bigint) AS first
GROUP BY entrypoint
ORDER BY entrypoint
