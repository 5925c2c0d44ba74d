TRUNCATE {queue_table_log}
