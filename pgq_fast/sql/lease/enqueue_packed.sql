-- Enqueue jobs that may run now and have neither dedupe keys nor headers; their ids in any order,
-- 8 bytes each.
--
-- The jobs come as the names that occur ($1), then for each job the place of its name among them, its
-- priority, and start and length of its payload in $6, which holds all of them. Lists of bytes and of
-- names would take client and server a good part of the time that the insert does.
WITH inserted AS (
    INSERT INTO {ready_table} (entrypoint, priority, payload)
    SELECT ($1::text[])[job.name], job.priority, substr($6::bytea, job.start, job.length)
    FROM (
        -- Expanded side by side and in order, so that the lowest id is that of the first job.
        SELECT
            unnest($2::text::int[]) AS name,
            unnest($3::text::int[]) AS priority,
            unnest($4::text::int[]) AS start,
            unnest($5::text::int[]) AS length
    ) AS job
    RETURNING id
)
SELECT string_agg(int8send(id), ''::bytea) FROM inserted
