-- 1 if a job of the entrypoints $1 is queued, else 0; a count would read the whole backlog.
SELECT EXISTS (
    SELECT FROM {queue_table}
    WHERE entrypoint = ANY($1::text[]) AND status = 'queued'
    -- [eligible
        AND execute_after <= now()
    -- eligible]
)::int AS queued_work
