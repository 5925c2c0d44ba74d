-- Time until the first of the deferred jobs of the entrypoints $1 becomes due. Later than Python has
-- years is as good as never.
SELECT least(execute_after, timestamptz '9999-12-31 UTC') - now() AS eta
FROM {queue_table}
WHERE status = 'queued' AND execute_after > now() AND entrypoint = ANY($1::text[])
ORDER BY execute_after
LIMIT 1
