-- How many jobs there are to copy.
SELECT count(*) AS jobs FROM {queue_table} WHERE status IN ('queued', 'failed')
