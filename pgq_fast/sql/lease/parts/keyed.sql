-- The dedupe keys of the jobs in <jobs> (key), which may be NULL: their priorities are the latest, and
-- stay so until this commits. Locked after the leases and before queued jobs, in their order, as
-- everybody does it, so that nobody waits for somebody who waits for him.
keyed AS MATERIALIZED (
    SELECT key, job_id, priority
    FROM {dedupe_table}
    WHERE key = ANY(ARRAY(SELECT key FROM <jobs>))
    ORDER BY key
    FOR UPDATE
),
