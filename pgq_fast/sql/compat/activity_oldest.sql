-- The queued job with the lowest id of each entrypoint and priority, $1 of them at most: one probe of
-- an index for each, however many jobs there are.
WITH RECURSIVE head AS (
    (
        SELECT entrypoint, priority, created, execute_after
        FROM {queue_table}
        WHERE status = 'queued'
        ORDER BY entrypoint, priority DESC, id
        LIMIT 1
    )
    UNION ALL
    SELECT next.entrypoint, next.priority, next.created, next.execute_after
    FROM head
    CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT entrypoint, priority, created, execute_after
            FROM {queue_table}
            WHERE status = 'queued' AND entrypoint = head.entrypoint AND priority < head.priority
            ORDER BY entrypoint, priority DESC, id
            LIMIT 1
        ) AS lower
        UNION ALL
        SELECT * FROM (
            SELECT entrypoint, priority, created, execute_after
            FROM {queue_table}
            WHERE status = 'queued' AND entrypoint > head.entrypoint
            ORDER BY entrypoint, priority DESC, id
            LIMIT 1
        ) AS other
        ORDER BY entrypoint, priority DESC
        LIMIT 1
    ) AS next
)
-- No ORDER BY around the recursion: it ends as soon as the limit is reached.
SELECT entrypoint, min(created) AS created, min(execute_after) <= now() AS is_due,
    extract(epoch FROM now() - min(created))::float8 AS age
FROM (SELECT * FROM head LIMIT $1::bigint) AS first
GROUP BY entrypoint
ORDER BY entrypoint
