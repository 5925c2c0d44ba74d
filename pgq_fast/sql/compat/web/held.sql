-- A page of $5 held jobs, the latest first, with ids below $1, of the entrypoint $2 where given,
-- of priorities from $6 to $7, created longer than $3 ago where given. Looks at $4 jobs at most.
WITH
-- include compat/web/parts/held look=$4
chosen AS MATERIALIZED (
    SELECT id
    FROM held
    CROSS JOIN LATERAL (
        SELECT entrypoint, created, priority FROM {queue_table} AS job
        WHERE job.id = held.id
        LIMIT 1
    ) AS job
    WHERE id < $1::bigint AND ($2::text IS NULL OR entrypoint = $2::text)
        AND ($3::interval IS NULL OR created <= now() - $3::interval)
        AND priority >= $6::integer AND priority <= $7::integer
    ORDER BY id DESC
    LIMIT $5::bigint
)
-- include common/web/parts/held_page table={queue_table} log={queue_table_log} since=updated
