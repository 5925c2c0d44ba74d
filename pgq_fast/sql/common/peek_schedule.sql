SELECT * FROM {schedules_table} ORDER BY last_run
