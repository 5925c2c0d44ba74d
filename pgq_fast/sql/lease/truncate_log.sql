TRUNCATE {log_entries_table}, {log_batches_table}
