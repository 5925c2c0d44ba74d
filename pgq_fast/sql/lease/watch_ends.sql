-- The watcher $1 is to be told of ends of jobs for the time $2. Whether that is news.
WITH before AS MATERIALIZED (
    SELECT FROM {waiting_table} WHERE id = $1::uuid AND until > clock_timestamp()
),
gone AS (
    DELETE FROM {waiting_table} WHERE until < clock_timestamp() AND id <> $1::uuid
)
INSERT INTO {waiting_table} AS waiting (id, for_work, for_ends, until)
VALUES ($1::uuid, false, true, clock_timestamp() + $2::interval)
ON CONFLICT (id) DO UPDATE SET for_ends = true, until = excluded.until
RETURNING NOT EXISTS (SELECT FROM before) AS news
