-- The <most> first entrypoints with queued jobs from <first> on, by one probe of the index each.
name AS (
    (
        SELECT entrypoint, 1 AS n FROM {queue_table}
        WHERE status = 'queued' AND entrypoint >= <first>
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
    WHERE name.n < <most>::integer
)
