-- The $2 first entrypoints with queued jobs from $1 on, by one probe of the index each.
WITH RECURSIVE name AS (
    (
        SELECT entrypoint, 1 AS n FROM {queue_table}
        WHERE status = 'queued' AND entrypoint >= $1::text
        ORDER BY entrypoint
        LIMIT 1
    )
    UNION ALL
    SELECT next.entrypoint, name.n + 1
    FROM name
    CROSS JOIN LATERAL (
        SELECT entrypoint FROM {queue_table}
        WHERE status = 'queued' AND entrypoint > name.entrypoint
        ORDER BY entrypoint
        LIMIT 1
    ) AS next
    WHERE name.n < $2::integer
)
SELECT entrypoint FROM name ORDER BY n
