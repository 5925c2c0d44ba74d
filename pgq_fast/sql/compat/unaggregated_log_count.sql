SELECT count(*) AS unaggregated FROM {queue_table_log} WHERE NOT aggregated
