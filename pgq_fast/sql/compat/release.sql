-- Give back what the worker $1 has picked, except the jobs $2: claims that it never started.
WITH released AS (
    UPDATE {queue_table}
    SET status = 'queued', updated = now(), queue_manager_id = NULL, slot = NULL
    WHERE queue_manager_id = $1::uuid AND status = 'picked' AND NOT id = ANY($2::text::bigint[])
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'queued', entrypoint, priority FROM released
