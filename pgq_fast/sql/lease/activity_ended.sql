-- What the log says of the time from $1 to $2: the latest $3 entries and $3 batches of it at most.
WITH entry AS MATERIALIZED (
    SELECT created, status, entrypoint
    FROM {log_entries_table}
    WHERE created > $1::timestamptz AND created <= $2::timestamptz
    ORDER BY created DESC
    LIMIT $3::bigint
),
batch AS MATERIALIZED (
    SELECT created, status, entrypoint, jobs
    FROM {log_batches_table}
    WHERE created > $1::timestamptz AND created <= $2::timestamptz
    ORDER BY created DESC
    LIMIT $3::bigint
)
SELECT 'entries' AS source, entrypoint, status::text AS status, count(*) AS entries,
    count(*) AS jobs, min(created) AS since
FROM entry
GROUP BY entrypoint, status
UNION ALL
SELECT 'batches' AS source, entrypoint, status::text AS status, count(*) AS entries,
    sum(jobs)::bigint AS jobs, min(created) AS since
FROM batch
GROUP BY entrypoint, status
