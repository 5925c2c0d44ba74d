-- The $2 first entrypoints with queued jobs from $1 on, by one probe of each index each.
WITH RECURSIVE name AS (
    SELECT least(
        (
            SELECT entrypoint FROM {ready_table} WHERE entrypoint >= $1::text
            ORDER BY entrypoint LIMIT 1
        ),
        (
            SELECT entrypoint FROM {deferred_table} WHERE entrypoint >= $1::text
            ORDER BY entrypoint LIMIT 1
        )
    ) AS entrypoint, 1 AS n
    UNION ALL
    SELECT least(
        (
            SELECT entrypoint FROM {ready_table} WHERE entrypoint > name.entrypoint
            ORDER BY entrypoint LIMIT 1
        ),
        (
            SELECT entrypoint FROM {deferred_table} WHERE entrypoint > name.entrypoint
            ORDER BY entrypoint LIMIT 1
        )
    ), name.n + 1
    FROM name
    WHERE name.n < $2::integer AND name.entrypoint IS NOT NULL
)
SELECT entrypoint FROM name WHERE entrypoint IS NOT NULL ORDER BY n
