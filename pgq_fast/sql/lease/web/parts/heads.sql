-- The first job of each entrypoint and priority that is ready, of <names> pairs at most: `head`
-- (entrypoint, rank, since, n), where rank is the complement of the priority.
head AS (
    (
        SELECT entrypoint, ~priority AS rank, greatest(created, execute_after) AS since, 1 AS n
        FROM {ready_table}
        ORDER BY entrypoint, ~priority, id
        LIMIT 1
    )
    UNION ALL
    SELECT next.entrypoint, next.rank, next.since, head.n + 1
    FROM head
    CROSS JOIN LATERAL (
        SELECT entrypoint, ~priority AS rank, greatest(created, execute_after) AS since
        FROM {ready_table}
        WHERE (entrypoint, ~priority) > (head.entrypoint, head.rank)
        ORDER BY entrypoint, ~priority, id
        LIMIT 1
    ) AS next
    WHERE head.n < <names>::integer
),
