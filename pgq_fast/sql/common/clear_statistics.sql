DELETE FROM {statistics_table} WHERE entrypoint = ANY($1::text[])
