-- The success of the jobs in `fresh`. The arrays of a lease are in the order of claims, so where the
-- first and the last priority are equal all are, and the ids ascend; where somebody has changed
-- them they need not, and a range the wrong way round would be an error. What the settings keep no log of
-- is a row without ids, for the statistics.
logged AS (
    INSERT INTO {log_batches_table} (
        status, entrypoint, worker, picked_at, jobs, queued_at, priority, priorities, first_id,
        last_id, ids
    )
    SELECT 'successful', entrypoint, worker, picked_at, cardinality(ids), created,
        CASE WHEN uniform THEN priorities[1] END,
        CASE WHEN NOT uniform THEN priorities END,
        CASE WHEN NOT kept THEN NULL WHEN uniform THEN least(ids[1], ids[cardinality(ids)])
            ELSE (SELECT min(id) FROM unnest(ids) AS job (id)) END,
        CASE WHEN NOT kept THEN NULL WHEN uniform THEN greatest(ids[1], ids[cardinality(ids)])
            ELSE (SELECT max(id) FROM unnest(ids) AS job (id)) END,
        CASE WHEN kept THEN ids END
    FROM (
        SELECT fresh.*,
            coalesce(priorities[1] = priorities[cardinality(priorities)], false) AS uniform,
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
