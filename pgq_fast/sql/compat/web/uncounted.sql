-- How many entries the statistics do not count yet; $1 stands for as many or more.
SELECT count(*) AS entries
FROM (SELECT FROM {queue_table_log} WHERE NOT aggregated LIMIT $1::bigint) AS entry
