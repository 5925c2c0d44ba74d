-- The first $1 schedules by name.
SELECT id, expression, entrypoint, heartbeat, created, updated, next_run, last_run,
    status::text AS status
FROM {schedules_table}
ORDER BY entrypoint, expression
LIMIT $1::bigint
