-- Delete the jobs $1, whoever holds them, and log them as canceled.
WITH canceled AS (
    DELETE FROM {queue_table}
    WHERE id = ANY($1::bigint[])
    RETURNING id, entrypoint, priority
)
INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
SELECT id, 'canceled', entrypoint, priority FROM canceled
