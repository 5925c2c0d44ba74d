-- Run times of the jobs that ended within $1. Of single ones: from the entry before, if that says
-- picked. Those of a batch have one and the same, so the batches are not unpacked: each counts as
-- often as it has jobs, and percentiles are interpolated as percentile_cont does it.
WITH
entry AS (
    SELECT entrypoint, status, created,
        lag(status) OVER job AS previous, lag(created) OVER job AS since
    FROM {log_entries_table}
    WHERE created > now() - $1::interval
    WINDOW job AS (PARTITION BY job_id ORDER BY created, id)
),
run AS (
    SELECT entrypoint, extract(epoch FROM created - since)::float8 AS seconds, 1 AS jobs
    FROM entry
    WHERE previous = 'picked' AND status IN ('successful', 'exception', 'canceled', 'failed')
    UNION ALL
    SELECT entrypoint, extract(epoch FROM created - picked_at)::float8, jobs
    FROM {log_batches_table}
    WHERE created > now() - $1::interval AND picked_at > now() - $1::interval
        AND status IN ('successful', 'exception', 'canceled', 'failed') AND ids IS NOT NULL
),
-- Jobs up to and with this run time, and in all.
ranked AS (
    SELECT entrypoint, seconds, sum(jobs) OVER (PARTITION BY entrypoint ORDER BY seconds) AS upto,
        sum(jobs) OVER (PARTITION BY entrypoint) AS total
    FROM run
),
-- The run times at the two places, counted from 0, between which a percentile lies.
percentile AS (
    SELECT entrypoint, total, point.fraction, point.place - floor(point.place) AS share,
        min(seconds) FILTER (WHERE upto > floor(point.place)) AS below,
        min(seconds) FILTER (WHERE upto > ceil(point.place)) AS above,
        max(seconds) AS longest
    FROM ranked
    CROSS JOIN (VALUES (0.5::float8), (0.95), (0.99)) AS wanted (fraction)
    CROSS JOIN LATERAL (
        SELECT wanted.fraction, wanted.fraction * (total - 1)::float8 AS place
    ) AS point
    GROUP BY entrypoint, total, point.fraction, point.place
)
SELECT entrypoint, total::bigint AS completed,
    max(below + (above - below) * share) FILTER (WHERE fraction = 0.5) AS p50_seconds,
    max(below + (above - below) * share) FILTER (WHERE fraction = 0.95) AS p95_seconds,
    max(below + (above - below) * share) FILTER (WHERE fraction = 0.99) AS p99_seconds,
    max(longest) AS max_seconds
FROM percentile
GROUP BY entrypoint, total
ORDER BY p95_seconds DESC
