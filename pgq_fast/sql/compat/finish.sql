-- Delete the jobs $1, which ended successfully, and log them.
--
-- Fenced by the owner $2: a job that another worker has taken over since stays as it is. The owner is
-- compared so that its index is no choice: a worker may hold many more jobs than it ends here.
WITH done AS (
    DELETE FROM {queue_table}
    WHERE id = ANY($1::bigint[]) AND queue_manager_id IS NOT DISTINCT FROM $2::uuid
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'successful', entrypoint, priority FROM done
