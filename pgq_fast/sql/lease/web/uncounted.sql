-- How many rows of the log the statistics do not count yet; $1 stands for as many or more.
SELECT count(*) AS entries
FROM (
    (SELECT FROM {log_batches_table} WHERE NOT aggregated LIMIT $1::bigint)
    UNION ALL
    (SELECT FROM {log_entries_table} WHERE NOT aggregated LIMIT $1::bigint)
    LIMIT $1::bigint
) AS entry
