-- Failures are logged one by one, so the batches need not be read.
SELECT * FROM {log_entries_table}
WHERE status = 'exception'
ORDER BY created DESC
LIMIT $1::bigint
