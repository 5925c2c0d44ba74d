-- The last $2 things that the log has of the job $1, the newest first: of 1000 batches at most that
-- its id may be in.
SELECT created, status::text AS status, priority, entrypoint,
    left(traceback ->> 'exception_type', 200) AS exception_type,
    left(traceback ->> 'exception_message', 10000) AS exception_message,
    left(traceback ->> 'traceback', 100000) AS traceback,
    -- [payload
    left(traceback ->> 'additional_context', 10000) AS context,
    -- payload]
    id
FROM (
    (
        SELECT id, created, status, priority, entrypoint, traceback, 0 AS step
        FROM {log_entries_table}
        WHERE job_id = $1::bigint
        ORDER BY job_id, created DESC
        LIMIT $2::bigint
    )
    UNION ALL
    SELECT batch.id, event.created, event.status,
        coalesce(batch.priority, batch.priorities[batch.place]), batch.entrypoint, NULL, event.step
    FROM (
        SELECT *, array_position(ids, $1::bigint) AS place
        FROM (
            SELECT * FROM {log_batches_table}
            WHERE int8range(first_id, last_id, '[]') @> $1::bigint AND ids IS NOT NULL
            LIMIT 1000
        ) AS batch
        OFFSET 0
    ) AS batch
    CROSS JOIN LATERAL (
        VALUES
            (1, batch.queued_at[batch.place], 'queued'::{queue_status_type}),
            (2, batch.picked_at, 'picked'),
            (3, batch.created, batch.status)
    ) AS event (step, created, status)
    WHERE batch.place IS NOT NULL AND event.created IS NOT NULL
) AS entry
ORDER BY created DESC, step DESC, id DESC
LIMIT $2::bigint
