-- Run times by the entries of <table>, sampled: of each `slot`, which has n, since and until,
-- jobs among the <look> newest entries, at most <samples>.
ended AS MATERIALIZED (
    SELECT slot.n, entry.id, entry.job_id, entry.entrypoint, entry.created
    FROM slot
    CROSS JOIN LATERAL (
        SELECT *
        FROM (
            SELECT id, job_id, entrypoint, status, created
            FROM <table>
            WHERE created > slot.since AND created <= slot.until
            ORDER BY created DESC
            LIMIT <look>::bigint
        ) AS newest
        WHERE status IN ('successful', 'exception', 'canceled', 'failed')
        LIMIT <samples>::bigint
    ) AS entry
),
single AS (
    SELECT ended.n, ended.entrypoint,
        extract(epoch FROM ended.created - before.created)::float8 AS seconds, 1 AS jobs
    FROM ended
    CROSS JOIN LATERAL (
        SELECT status, created
        FROM <table> AS entry
        WHERE entry.job_id = ended.job_id AND entry.created <= ended.created
            AND entry.id <> ended.id
        ORDER BY entry.job_id, entry.created DESC
        LIMIT 1
    ) AS before
    WHERE before.status = 'picked'
),
