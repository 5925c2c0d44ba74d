-- What happened to the job $1, oldest first, at most $2 entries.
SELECT * FROM {queue_table_log}
WHERE job_id = $1::bigint
ORDER BY created, id
LIMIT $2::bigint
