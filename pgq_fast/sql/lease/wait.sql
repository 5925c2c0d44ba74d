-- The worker or watcher $1 waits to be told: of jobs to run where $2, of jobs that have ended where $3.
-- It says so again before $4 is over, or counts as gone. Whether that is news: until now, it may not
-- have been told.
WITH before AS MATERIALIZED (
    SELECT
    FROM {waiting_table}
    WHERE id = $1::uuid AND until > clock_timestamp() AND for_work >= $2::boolean
        AND for_ends >= $3::boolean
),
-- Not to wait for others that are just coming back, and may want to remove this one.
gone AS (
    DELETE FROM {waiting_table}
    WHERE id = ANY(ARRAY(
        SELECT id FROM {waiting_table} WHERE until < now() AND id <> $1::uuid FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO {waiting_table} AS waiting (id, for_work, for_ends, until)
VALUES ($1::uuid, $2::boolean, $3::boolean, statement_timestamp() + $4::interval)
ON CONFLICT (id) DO UPDATE
    SET for_work = excluded.for_work, for_ends = excluded.for_ends, until = excluded.until
RETURNING NOT EXISTS (SELECT FROM before) AS news
