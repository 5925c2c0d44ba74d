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
staged AS (
    DELETE FROM {staged_table} WHERE id = ANY (ARRAY(SELECT id FROM change))
)
-- [fenced
SELECT EXISTS (SELECT FROM turn) AS mine, array_agg(n) AS notes,
    array_agg(DISTINCT id) FILTER (WHERE id IS NOT NULL) AS ids, bool_or(id IS NULL) AS emptied
FROM change
-- fenced]
-- [rest
SELECT count(*) AS notes FROM change
-- rest]
