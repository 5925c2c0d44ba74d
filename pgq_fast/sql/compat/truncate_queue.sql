TRUNCATE {queue_table}
