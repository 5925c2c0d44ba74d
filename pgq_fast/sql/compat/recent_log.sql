-- The latest $1 entries of the log, newest first.
SELECT id, created, job_id, status::text AS status, priority, entrypoint, traceback, aggregated
FROM {queue_table_log}
ORDER BY id DESC
LIMIT $1::bigint
