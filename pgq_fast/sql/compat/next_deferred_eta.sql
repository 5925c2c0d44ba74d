-- Time until the first of the deferred jobs of the entrypoints $1 becomes due.
SELECT execute_after - now() AS eta
FROM {queue_table}
WHERE status = 'queued' AND execute_after > now() AND entrypoint = ANY($1::text[])
ORDER BY execute_after
LIMIT 1
