-- Make the schedules known: expressions $1, entrypoints $2, first run after $3. Known ones stay.
-- Seconds, because the days of an interval are days of the session's time zone.
INSERT INTO {schedules_table} (expression, entrypoint, next_run)
SELECT
    expression, entrypoint,
    date_trunc('seconds', now() + extract(epoch FROM delay) * interval '1 second')
FROM unnest($1::text[], $2::text[], $3::interval[]) AS schedule (expression, entrypoint, delay)
ON CONFLICT (entrypoint, expression) DO NOTHING
