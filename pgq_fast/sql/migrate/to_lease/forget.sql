-- Remove the copies of jobs that changed since.
-- [fenced
-- Of the first $2 notes: which notes these are, which jobs, and whether the queue was emptied.
-- fenced]
WITH
-- [fenced
-- include migrate/turn
-- fenced]
change AS MATERIALIZED (
    SELECT n, id
    FROM {changes_table}
    -- [fenced
    WHERE EXISTS (SELECT FROM turn)
    -- In the order of the changes, so that a key is free before its next job comes.
    ORDER BY n
    LIMIT $2::bigint
    -- fenced]
),
ready AS (
    DELETE FROM {staged_ready_table} WHERE id = ANY (ARRAY(SELECT id FROM change)) RETURNING id, dedupe_key
),
deferred AS (
    DELETE FROM {staged_deferred_table} WHERE id = ANY (ARRAY(SELECT id FROM change)) RETURNING id, dedupe_key
),
held AS (
    DELETE FROM {staged_held_table} WHERE id = ANY (ARRAY(SELECT id FROM change))
),
keyed AS (
    DELETE FROM {staged_dedupe_table}
    USING (SELECT * FROM ready UNION ALL SELECT * FROM deferred) AS gone
    WHERE key = gone.dedupe_key AND job_id = gone.id
)
-- [fenced
SELECT EXISTS (SELECT FROM turn) AS mine, array_agg(n) AS notes,
    array_agg(DISTINCT id) FILTER (WHERE id IS NOT NULL) AS ids, bool_or(id IS NULL) AS emptied
FROM change
-- fenced]
-- [rest
SELECT count(*) AS notes FROM change
-- rest]
