-- The latest status of each of the jobs $1.
SELECT DISTINCT ON (job_id) job_id, status::text AS status
FROM {queue_table_log}
WHERE job_id = ANY($1::bigint[])
ORDER BY job_id, created DESC, id DESC
