SELECT * FROM {queue_table_log}
WHERE status = 'exception'
ORDER BY created DESC
LIMIT $1::bigint
