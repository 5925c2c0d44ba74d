-- The last batch of the log.
SELECT coalesce(max(id), 0) AS id FROM {log_batches_table}
