-- Entries of <table> for jobs that raised, newest first, before the entry $2 of the time $1: $4 of
-- the $3 that were written last.
--
-- The range instead of equality keeps the order by status, which makes this a walk of the index from
-- its end. By LATERAL with LIMIT, each row is looked up by its key.
WITH
newest AS MATERIALIZED (
    SELECT id, created
    FROM <table>
    WHERE status >= 'exception' AND status <= 'exception'
    ORDER BY status DESC
    LIMIT $3::bigint
),
page AS MATERIALIZED (
    SELECT id
    FROM newest
    WHERE $1::timestamptz IS NULL OR (created, id) < ($1::timestamptz, $2::bigint)
    ORDER BY created DESC, id DESC
    LIMIT $4::bigint
)
SELECT entry.id, entry.created, entry.job_id, entry.entrypoint, entry.priority,
    left(entry.traceback ->> 'exception_type', 200) AS exception_type,
    left(entry.traceback ->> 'exception_message', 1000) AS exception_message,
    left(entry.traceback ->> 'traceback', 20000) AS traceback,
    (SELECT count(*) FROM newest) AS looked
FROM page
CROSS JOIN LATERAL (SELECT * FROM <table> AS entry WHERE entry.id = page.id LIMIT 1) AS entry
ORDER BY entry.created DESC, entry.id DESC
