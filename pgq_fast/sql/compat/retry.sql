-- Put the jobs $1 back to run after the delays $2, logged with the traceback records $3.
--
-- Fenced by the owners $4 and the attempts $5: a job that has changed hands since stays as it is,
-- and so does one that this very statement has put back before, should it be repeated.
WITH
wish AS MATERIALIZED (
    SELECT id, delay, traceback, owner, attempts
    FROM unnest($1::bigint[], $2::interval[], $3::text[]::jsonb[], $4::uuid[], $5::int[])
        AS wish (id, delay, traceback, owner, attempts)
),
retried AS (
    UPDATE {queue_table} AS job
    SET status = 'queued', execute_after =
        (now() AT TIME ZONE 'UTC' + wish.delay) AT TIME ZONE 'UTC',
        -- A number that somebody has written there must not make the statement fail.
        attempts = least(job.attempts, 2147483646) + 1,
        updated = now(), queue_manager_id = NULL, slot = NULL
    FROM wish
    WHERE job.id = ANY($1::bigint[]) AND job.id = wish.id
        AND job.queue_manager_id IS NOT DISTINCT FROM wish.owner
        AND job.attempts = wish.attempts
    RETURNING job.id, job.entrypoint, job.priority, wish.traceback
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority, traceback)
SELECT id, 'queued', entrypoint, priority, traceback FROM retried
