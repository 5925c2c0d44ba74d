-- Queue the held jobs among $1 again, as if they had never been tried.
WITH requeued AS (
    UPDATE {queue_table}
    SET status = 'queued', execute_after = now(), updated = now(), attempts = 0,
        queue_manager_id = NULL, slot = NULL
    WHERE id = ANY($1::bigint[]) AND status = 'failed'
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'queued', entrypoint, priority FROM requeued
