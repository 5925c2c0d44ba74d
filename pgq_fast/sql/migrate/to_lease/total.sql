-- How many jobs there are to copy.
SELECT count(*) AS jobs, 0 AS logged FROM {queue_table} WHERE status IN ('queued', 'failed')
