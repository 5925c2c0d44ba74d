TRUNCATE {statistics_table}
