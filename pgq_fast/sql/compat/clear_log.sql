DELETE FROM {queue_table_log} WHERE entrypoint = ANY($1::text[])
