DELETE FROM {schedules_table} WHERE id = ANY($1::bigint[]) OR entrypoint = ANY($2::text[])
