-- What happened to the job $1, oldest first, at most $2 entries.
WITH RECURSIVE
logged AS MATERIALIZED (
    SELECT id, created, job_id, status, priority, entrypoint, traceback, aggregated, 0 AS step
    FROM {log_entries_table}
    WHERE job_id = $1::bigint
    UNION ALL
    SELECT batch.id, event.created, $1::bigint, event.status,
        coalesce(batch.priority, batch.priorities[batch.place]), batch.entrypoint, NULL,
        batch.aggregated, event.step
    FROM (
        SELECT *, array_position(ids, $1::bigint) AS place
        FROM {log_batches_table}
        WHERE int8range(first_id, last_id, '[]') @> $1::bigint AND ids IS NOT NULL
        OFFSET 0
    ) AS batch
    CROSS JOIN LATERAL (
        VALUES
            (1, batch.queued_at[batch.place], 'queued'::{queue_status_type}),
            (2, batch.picked_at, 'picked'),
            (3, batch.created, batch.status)
    ) AS event (step, created, status)
    WHERE batch.place IS NOT NULL AND event.created IS NOT NULL
),
wanted AS MATERIALIZED (
    SELECT $1::bigint AS id
    WHERE NOT EXISTS (
        SELECT FROM logged WHERE status IN ('successful', 'exception', 'canceled', 'deleted')
    )
),
in_lease AS MATERIALIZED (
    SELECT lease.picked_at, lease.entrypoint, lease.created[job.place] AS created,
        lease.priorities[job.place] AS priority, wanted.id
    FROM {lease_table} AS lease
    CROSS JOIN LATERAL unnest(lease.ids) WITH ORDINALITY AS job (id, place)
    JOIN wanted ON wanted.id = job.id
    WHERE get_bit(lease.done, job.place::integer - 1) = 0 AND EXISTS (SELECT FROM wanted)
),
-- include lease/parts/in_ready
live AS (
    SELECT created, id, 'queued'::{queue_status_type} AS status, priority, entrypoint, 1 AS step
    FROM in_lease
    UNION ALL
    SELECT picked_at, id, 'picked', priority, entrypoint, 2 FROM in_lease
    UNION ALL
    SELECT created, id, 'queued', priority, entrypoint, 1
    FROM {held_table}
    WHERE id = $1::bigint
    UNION ALL
    SELECT created, id, 'queued', priority, entrypoint, 1
    FROM {ready_table}
    WHERE EXISTS (SELECT FROM in_ready) AND ctid = ANY(ARRAY(SELECT place FROM in_ready))
    UNION ALL
    SELECT created, id, 'queued', priority, entrypoint, 1
    FROM {deferred_table}
    WHERE EXISTS (SELECT id FROM wanted EXCEPT SELECT id FROM in_ready) AND id = $1::bigint
)
SELECT id, created, job_id, status, priority, entrypoint, traceback, aggregated
FROM (
    SELECT * FROM logged
    UNION ALL
    SELECT NULL, created, id, status, priority, entrypoint, NULL, false, step FROM live
) AS entry
ORDER BY created, id, step
LIMIT $2::bigint
