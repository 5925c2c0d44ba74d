-- Of up to $2 jobs of one table that were moved, behind the place $3, $4, $5, of held ones behind the id
-- $3: log that they were enqueued. The lease layout derived that from their rows. The last place.
WITH
-- include migrate/turn
batch AS MATERIALIZED (
    SELECT job.ctid AS spot, id, entrypoint, priority, execute_after, created
    -- [ready
    FROM {moved_ready_table} AS job
    -- Holds the order of the index, see compat/claim.sql.
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE (entrypoint, (~priority), id) > ($3::text, $4::text::int, $5::bigint)
        AND EXISTS (SELECT FROM turn)
    ORDER BY entrypoint, (~priority), id
    -- ready]
    -- [deferred
    FROM {moved_deferred_table} AS job
    -- Holds the order of the index, see compat/claim.sql.
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE (entrypoint, execute_after, id) > ($3::text, $4::text::timestamp AT TIME ZONE 'UTC', $5::bigint)
        AND EXISTS (SELECT FROM turn)
    ORDER BY entrypoint, execute_after, id
    -- deferred]
    -- [held
    FROM {moved_held_table} AS job
    -- Holds the order of the index, see compat/claim.sql.
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE id > $3::bigint AND EXISTS (SELECT FROM turn)
    ORDER BY id
    -- held]
    LIMIT $2::bigint
),
moved AS (
    DELETE FROM
        -- [ready
        {moved_ready_table}
        -- ready]
        -- [deferred
        {moved_deferred_table}
        -- deferred]
        -- [held
        {moved_held_table}
        -- held]
    WHERE ctid = ANY (ARRAY(SELECT spot FROM batch))
    RETURNING id, entrypoint, priority, created
),
entered AS (
    INSERT INTO {queue_table_log} (created, job_id, status, priority, entrypoint)
    SELECT created, id, 'queued', priority, entrypoint
    FROM moved
    ORDER BY created, id
)
SELECT EXISTS (SELECT FROM turn) AS mine, count(*) OVER () AS jobs,
    -- include migrate/to_compat/reached rows=batch
LIMIT 1
