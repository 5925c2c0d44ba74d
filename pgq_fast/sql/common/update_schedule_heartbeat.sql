UPDATE {schedules_table} SET heartbeat = statement_timestamp(), updated = now() WHERE id = ANY($1::bigint[])
