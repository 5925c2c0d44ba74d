-- The last $2 things that happened to the job $1, the newest first.
SELECT created, status::text AS status, priority, entrypoint,
    left(traceback ->> 'exception_type', 200) AS exception_type,
    left(traceback ->> 'exception_message', 10000) AS exception_message,
    left(traceback ->> 'traceback', 100000) AS traceback,
    -- [payload
    left(traceback ->> 'additional_context', 10000) AS context,
    -- payload]
    id
FROM {queue_table_log}
WHERE job_id = $1::bigint
ORDER BY job_id, created DESC
LIMIT $2::bigint
