-- Whether an enqueue is in the log, but not in the statistics.
SELECT EXISTS (
    SELECT FROM {log_entries_table} WHERE NOT aggregated AND status = 'queued' AND traceback IS NULL
) AS left
