-- Somebody vouches for the jobs $1.
UPDATE {queue_table} SET heartbeat = statement_timestamp() WHERE id = ANY($1::bigint[])
