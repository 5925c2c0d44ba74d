-- The dedupe keys of the jobs in <jobs> (key), which may be NULL: their priorities are the latest, and
-- stay so until this commits. Locked after the leases and before queued jobs, in their order, as
-- everybody does it, so that nobody waits for somebody who waits for him. `fan`, one row that the
-- planner takes for a thousand, has what joins these hash them.
keyed AS MATERIALIZED (
    SELECT dedupe.key, dedupe.job_id, dedupe.priority
    FROM {dedupe_table} AS dedupe
    CROSS JOIN generate_series(1, (SELECT 1)) AS fan
    WHERE dedupe.key = ANY(ARRAY(SELECT key FROM <jobs>))
    ORDER BY dedupe.key
    FOR UPDATE OF dedupe
),
