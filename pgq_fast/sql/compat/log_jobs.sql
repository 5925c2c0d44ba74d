-- End the jobs $1 with the statuses $2 and the traceback records $3: failed ones are held in the
-- table, the others leave it.
--
-- Fenced by the owners $4: a job that has changed hands since stays as it is. Completion watchers
-- rely on the notification of the DELETE, which is sent even where it deletes nothing.
WITH
outcome AS MATERIALIZED (
    SELECT id, status, traceback, owner
    FROM unnest($1::bigint[], $2::text[]::{queue_status_type}[], $3::text[]::jsonb[], $4::uuid[])
        AS outcome (id, status, traceback, owner)
),
deleted AS (
    DELETE FROM {queue_table} AS job
    USING outcome
    WHERE job.id = ANY($1::bigint[]) AND job.id = outcome.id AND outcome.status <> 'failed'
        AND job.queue_manager_id IS NOT DISTINCT FROM outcome.owner
    RETURNING job.id, job.entrypoint, job.priority
),
held AS (
    UPDATE {queue_table} AS job
    SET status = 'failed', updated = now(), queue_manager_id = NULL, slot = NULL
    FROM outcome
    WHERE job.id = ANY($1::bigint[]) AND job.id = outcome.id AND outcome.status = 'failed'
        AND job.queue_manager_id IS NOT DISTINCT FROM outcome.owner
    RETURNING job.id, job.entrypoint, job.priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority, traceback)
SELECT outcome.id, outcome.status, ended.entrypoint, ended.priority, outcome.traceback
FROM outcome
JOIN (SELECT * FROM deleted UNION ALL SELECT * FROM held) AS ended USING (id)
