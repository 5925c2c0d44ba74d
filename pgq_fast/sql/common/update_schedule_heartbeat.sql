UPDATE {schedules_table} SET heartbeat = now(), updated = now() WHERE id = ANY($1::bigint[])
