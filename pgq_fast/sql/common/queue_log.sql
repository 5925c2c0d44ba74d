SELECT * FROM {queue_table_log}
