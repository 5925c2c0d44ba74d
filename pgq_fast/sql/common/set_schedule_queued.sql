UPDATE {schedules_table} SET status = 'queued', last_run = now(), updated = now()
WHERE id = ANY($1::bigint[])
