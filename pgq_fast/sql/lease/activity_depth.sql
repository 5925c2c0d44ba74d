-- How much is in the queue. At most $1 jobs, or leases, of a table are counted, so that the cost does
-- not grow with the queue; what is beyond is estimated from PostgreSQL's own statistics.
WITH waiting AS MATERIALIZED (
    SELECT FROM {ready_table} ORDER BY entrypoint, (~ priority), id LIMIT $1::bigint
),
deferred AS MATERIALIZED (
    SELECT FROM {deferred_table} ORDER BY entrypoint, execute_after, id LIMIT $1::bigint
),
running AS MATERIALIZED (
    SELECT length(done) - bit_count(done) AS jobs FROM {lease_table} LIMIT $1::bigint
)
SELECT now() AS at,
    (SELECT count(*) FROM waiting) AS waiting,
    (SELECT count(*) FROM deferred) AS deferred,
    (SELECT coalesce(sum(jobs), 0)::bigint FROM running) AS running,
    (SELECT count(*) FROM waiting) >= $1::bigint AS waiting_is_capped,
    (SELECT count(*) FROM deferred) >= $1::bigint AS deferred_is_capped,
    (SELECT count(*) FROM running) >= $1::bigint AS running_is_capped,
    (
        SELECT sum(n_live_tup)::bigint FROM pg_stat_all_tables
        WHERE relid = ANY(ARRAY['{ready_table}'::regclass, '{deferred_table}'::regclass])
    ) AS estimated_rows,
    -- NULL before the first id.
    CASE WHEN has_sequence_privilege('{ids_sequence}'::regclass, 'SELECT')
        THEN coalesce(pg_sequence_last_value('{ids_sequence}'::regclass), 0) END AS last_id,
    -- Few rows, and only those of who waits.
    (
        SELECT count(*) FROM {waiting_table} WHERE for_work AND until > now()
    ) AS sleeping_workers
