-- The $1 held jobs created last, or first.
SELECT * FROM {queue_table}
WHERE status = 'failed'
-- [descending
ORDER BY created DESC
-- descending]
-- [ascending
ORDER BY created
-- ascending]
LIMIT $1::bigint
