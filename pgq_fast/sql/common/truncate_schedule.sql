TRUNCATE {schedules_table}
