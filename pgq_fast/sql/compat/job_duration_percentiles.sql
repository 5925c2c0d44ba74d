-- Run times of the jobs that ended within $1: from the entry before, if that says picked.
WITH
entry AS (
    SELECT entrypoint, status, created,
        lag(status) OVER job AS previous, lag(created) OVER job AS since
    FROM {queue_table_log}
    WHERE created > now() - $1::interval
    WINDOW job AS (PARTITION BY job_id ORDER BY created, id)
),
run AS (
    SELECT entrypoint, extract(epoch FROM created - since)::float8 AS seconds
    FROM entry
    WHERE previous = 'picked' AND status IN ('successful', 'exception', 'canceled', 'failed')
)
SELECT entrypoint, count(*) AS completed,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50_seconds,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95_seconds,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds) AS p99_seconds,
    max(seconds) AS max_seconds
FROM run
GROUP BY entrypoint
ORDER BY p95_seconds DESC
