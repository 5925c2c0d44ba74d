-- How much is in the queue. At most $1 jobs of a status are counted, in the order of an index that has
-- only those, so that the cost does not grow with the queue; what is beyond is estimated from
-- PostgreSQL's own statistics.
WITH queued AS MATERIALIZED (
    SELECT execute_after > now() AS later
    FROM {queue_table}
    WHERE status = 'queued'
    ORDER BY priority, id DESC
    LIMIT $1::bigint
),
running AS MATERIALIZED (
    SELECT
    FROM {queue_table}
    WHERE status = 'picked'
    ORDER BY heartbeat
    LIMIT $1::bigint
),
ids AS (
    SELECT pg_get_serial_sequence('{queue_table}', 'id')::regclass AS sequence
)
SELECT now() AS at,
    (SELECT count(*) FROM queued WHERE NOT later) AS waiting,
    (SELECT count(*) FROM queued WHERE later) AS deferred,
    (SELECT count(*) FROM running) AS running,
    (SELECT count(*) FROM queued) >= $1::bigint AS waiting_is_capped,
    (SELECT count(*) FROM queued) >= $1::bigint AS deferred_is_capped,
    (SELECT count(*) FROM running) >= $1::bigint AS running_is_capped,
    (
        SELECT n_live_tup FROM pg_stat_all_tables WHERE relid = '{queue_table}'::regclass
    ) AS estimated_rows,
    -- NULL before the first id.
    CASE WHEN has_sequence_privilege(ids.sequence, 'SELECT')
        THEN coalesce(pg_sequence_last_value(ids.sequence), 0) END AS last_id,
    NULL::bigint AS sleeping_workers
FROM ids
