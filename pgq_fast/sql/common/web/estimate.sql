-- Rows of the table $1 as the planner would guess: those by page of the last time it was analysed,
-- times the pages of now. NULL if it never was.
SELECT CASE WHEN reltuples >= 0 AND relpages > 0 THEN (
    reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::bigint)
)::bigint END AS rows
FROM pg_class
WHERE oid = $1::text::regclass
