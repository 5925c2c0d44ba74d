-- Run times of jobs that ended within $1, sampled in $2 slots: of each, the $4 newest batches, and
-- single jobs among the $3 newest entries, at most $4.
WITH
-- include common/web/parts/slots window=$1 slots=$2
-- include common/web/parts/single_durations table={log_entries_table} look=$3 samples=$4
batch AS (
    SELECT slot.n, batch.entrypoint,
        extract(epoch FROM batch.created - batch.picked_at)::float8 AS seconds, batch.jobs
    FROM slot
    CROSS JOIN LATERAL (
        SELECT entrypoint, created, picked_at, status, jobs
        FROM {log_batches_table}
        WHERE created > slot.since AND created <= slot.until
        ORDER BY created DESC
        LIMIT $4::bigint
    ) AS batch
    WHERE batch.picked_at IS NOT NULL
        AND batch.status IN ('successful', 'exception', 'canceled', 'failed')
)
SELECT n, entrypoint, seconds, jobs FROM single
UNION ALL
SELECT n, entrypoint, seconds, jobs FROM batch
