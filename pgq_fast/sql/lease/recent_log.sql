-- The latest $1 entries of the log, newest first: what has been written, which is what became of jobs
-- that ended or were changed. Not through the view, which would read all that is queued.
--
-- A batch's last event is its own time, one for each of its jobs. So the latest batches with $1 jobs
-- between them have the latest $1 events.
WITH batch AS (
    SELECT *
    FROM (
        SELECT *,
            sum(cardinality(ids)) OVER (ORDER BY created DESC, id DESC ROWS UNBOUNDED PRECEDING)
                - cardinality(ids) AS before
        FROM (
            SELECT *
            FROM {log_batches_table}
            WHERE ids IS NOT NULL
            ORDER BY created DESC
            LIMIT $1::bigint
        ) AS latest
    ) AS counted
    WHERE before < $1::bigint
),
entry AS (
    SELECT id, created, job_id, status, priority, entrypoint, traceback, aggregated
    FROM {log_entries_table}
    ORDER BY created DESC
    LIMIT $1::bigint
)
SELECT id, created, job_id, status::text AS status, priority, entrypoint, traceback, aggregated
FROM (
    SELECT id, created, job_id, status, priority, entrypoint, traceback, aggregated, 1 AS stage
    FROM entry
    UNION ALL
    SELECT batch.id, event.created, job.id, event.status, coalesce(batch.priority, job.priority),
        batch.entrypoint, NULL::jsonb, batch.aggregated, event.stage
    FROM batch
    CROSS JOIN LATERAL unnest(batch.ids, batch.priorities, batch.queued_at)
        AS job (id, priority, queued_at)
    CROSS JOIN LATERAL (
        VALUES
            (job.queued_at, 'queued'::{queue_status_type}, 0),
            (batch.picked_at, 'picked'::{queue_status_type}, 1),
            (batch.created, batch.status, 2)
    ) AS event (created, status, stage)
    WHERE event.created IS NOT NULL AND job.id IS NOT NULL
) AS event
ORDER BY created DESC, stage DESC, job_id DESC
LIMIT $1::bigint
