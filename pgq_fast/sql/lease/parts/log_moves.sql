-- Log what became of the jobs in `moved` (id, status, traceback, priority, entrypoint, created,
-- worker, picked_at), each as far as `modes` (fallback, exceptions) says; see layouts/lease_log.py.
--
-- A job that goes back to the queue or is held says from there when it was created; of one that is
-- gone the log has to.
told AS MATERIALIZED (
    SELECT moved.id, moved.status, moved.traceback, moved.priority, moved.entrypoint, moved.worker,
        moved.picked_at, coalesce(modes.exceptions ->> moved.entrypoint, modes.fallback) AS mode,
        CASE WHEN moved.status NOT IN ('queued', 'failed') THEN moved.created END AS created
    FROM moved
    CROSS JOIN modes
),
entries AS (
    INSERT INTO {log_entries_table} (created, job_id, status, priority, entrypoint, traceback)
    SELECT event.created, told.id, event.status, told.priority, told.entrypoint, event.traceback
    FROM told
    CROSS JOIN LATERAL (
        VALUES
            (1, told.created, 'queued'::{queue_status_type}, NULL::jsonb),
            (2, told.picked_at, 'picked', NULL),
            (3, now(), told.status, told.traceback)
    ) AS event (step, created, status, traceback)
    WHERE event.created IS NOT NULL AND told.mode <> 'none'
        AND (told.status <> 'successful' OR told.traceback IS NOT NULL)
    -- Entries of one instant are read in the order of their ids.
    ORDER BY told.id, event.step
),
batches AS (
    INSERT INTO {log_batches_table} (status, entrypoint, worker, picked_at, jobs, priority,
        priorities, queued_at, first_id, last_id, ids)
    SELECT status, entrypoint, worker, picked_at, count(*),
        CASE WHEN min(priority) = max(priority) THEN min(priority) END,
        CASE WHEN min(priority) < max(priority) THEN array_agg(priority ORDER BY id) END,
        CASE WHEN count(created) > 0 THEN array_agg(created ORDER BY id) END,
        CASE WHEN mode = 'all' THEN min(id) END,
        CASE WHEN mode = 'all' THEN max(id) END,
        CASE WHEN mode = 'all' THEN array_agg(id ORDER BY id) END
    FROM told
    WHERE mode = 'none' OR (status = 'successful' AND traceback IS NULL)
    GROUP BY status, entrypoint, worker, picked_at, mode
)
