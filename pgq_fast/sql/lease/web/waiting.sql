-- How many workers wait to be told of jobs, by looking at $1 at most.
SELECT count(*) AS workers
FROM (
    SELECT for_work FROM {waiting_table} WHERE until > clock_timestamp() LIMIT $1::bigint
) AS waiting
WHERE for_work
