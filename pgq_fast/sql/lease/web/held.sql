-- A page of $5 held jobs, the latest first, with ids below $1, of the entrypoint $2 where given,
-- of priorities from $6 to $7, created longer than $3 ago where given. Looks at $4 jobs at most.
WITH
looked AS MATERIALIZED (
    SELECT id, entrypoint, created, priority
    FROM {held_table}
    WHERE id < $1::bigint
    ORDER BY id DESC
    LIMIT $4::bigint
),
cut AS (SELECT (SELECT count(*) FROM looked) >= $4::bigint AS cut),
chosen AS MATERIALIZED (
    SELECT id
    FROM looked
    WHERE ($2::text IS NULL OR entrypoint = $2::text)
        AND ($3::interval IS NULL OR created <= now() - $3::interval)
        AND priority >= $6::integer AND priority <= $7::integer
    ORDER BY id DESC
    LIMIT $5::bigint
)
-- include common/web/parts/held_page table={held_table} log={log_entries_table} since=held_at
