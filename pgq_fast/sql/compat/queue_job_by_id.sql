SELECT * FROM {queue_table} WHERE id = $1::bigint
