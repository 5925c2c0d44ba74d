-- Delete the jobs of the entrypoints $1, whatever their status, and log them.
WITH deleted AS (
    DELETE FROM {queue_table} WHERE entrypoint = ANY($1::text[])
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'deleted', entrypoint, priority FROM deleted
