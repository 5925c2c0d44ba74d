-- Nothing is left of a lease but a row of the log with those of its jobs that had not ended before.
ended AS (
    DELETE FROM {lease_table}
    WHERE id = ANY(ARRAY(
        -- Locked by id, as everybody does it.
        SELECT id
        FROM {lease_table}
        -- Compared so that the owner's index is no choice.
        WHERE id = ANY(<leases>::text::bigint[]) AND worker IS NOT DISTINCT FROM <owner>::uuid
        ORDER BY id
        FOR UPDATE
    ))
    RETURNING id, entrypoint, worker, picked_at, done, ids, priorities, created, dedupe_keys
),
fresh AS (
    SELECT entrypoint, worker, picked_at, ids, priorities, created
    FROM ended
    WHERE bit_count(done) = 0
    UNION ALL
    SELECT entrypoint, worker, picked_at, array_agg(job.id ORDER BY job.place),
        array_agg(job.priority ORDER BY job.place), array_agg(job.created ORDER BY job.place)
    FROM ended
    CROSS JOIN LATERAL unnest(ended.ids, ended.priorities, ended.created) WITH ORDINALITY
        AS job (id, priority, created, place)
    WHERE bit_count(done) > 0 AND substring(done, job.place::integer, 1) = B'0'
    GROUP BY ended.id, entrypoint, worker, picked_at
),
-- include lease/parts/logged default=<default> exceptions=<exceptions>
-- Only the keys of jobs that end here: one that went back to the queue before keeps its own.
key_of AS MATERIALIZED (
    SELECT job.id, job.key
    FROM ended
    CROSS JOIN LATERAL unnest(ended.ids, ended.dedupe_keys) WITH ORDINALITY
        AS job (id, key, place)
    WHERE ended.dedupe_keys IS NOT NULL AND substring(ended.done, job.place::integer, 1) = B'0'
),
-- include lease/parts/keyed jobs=key_of
freed AS (
    DELETE FROM {dedupe_table} AS dedupe
    USING key_of
    WHERE dedupe.key = key_of.key AND dedupe.job_id = key_of.id
        AND (SELECT count(*) FROM keyed) >= 0
),
