-- The success of the jobs in `fresh`. The arrays of a lease are in the order of claims, so where the
-- first and the last priority are equal all are, and the ids ascend. What the settings keep no log of
-- is a row without ids, for the statistics.
logged AS (
    INSERT INTO {log_batches_table} (
        status, entrypoint, worker, picked_at, jobs, queued_at, priority, priorities, first_id,
        last_id, ids
    )
    SELECT 'successful', entrypoint, worker, picked_at, cardinality(ids), created,
        CASE WHEN uniform THEN priorities[1] END,
        CASE WHEN NOT uniform THEN priorities END,
        CASE WHEN NOT kept THEN NULL WHEN uniform THEN ids[1]
            ELSE (SELECT min(id) FROM unnest(ids) AS job (id)) END,
        CASE WHEN NOT kept THEN NULL WHEN uniform THEN ids[cardinality(ids)]
            ELSE (SELECT max(id) FROM unnest(ids) AS job (id)) END,
        CASE WHEN kept THEN ids END
    FROM (
        SELECT fresh.*, priorities[1] = priorities[cardinality(priorities)] AS uniform,
            -- [selective
            coalesce((SELECT <exceptions>::text::jsonb) ->> entrypoint, (SELECT <default>::text))
                = 'all' AS kept
            -- selective]
            -- [unselective
            true AS kept
            -- unselective]
        FROM fresh
    ) AS batch
),
