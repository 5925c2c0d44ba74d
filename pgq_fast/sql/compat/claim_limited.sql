-- Claim as claim.sql does, where some of the entrypoints $2 have a concurrency limit: $6, in their
-- order, 0 for none.
--
-- The unique index on (entrypoint, slot) of picked jobs is what holds a limit across workers: two
-- that see the same free seat cannot both take it, and the second fails as a whole, which means no
-- more than that it claimed nothing.
WITH
-- [relaxed
-- The commit of a claim does not wait for the disk. A crash of the server that loses it leaves the
-- jobs queued, to be claimed again. Local to this statement's own transaction.
relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
),
-- relaxed]
wanted AS MATERIALIZED (
    SELECT entrypoint, seats
    FROM unnest((SELECT $2::text[]), (SELECT $6::bigint[])) AS wanted (entrypoint, seats)
),
-- Jobs that count against a limit: those with an owner, seated or not.
picked AS MATERIALIZED (
    SELECT entrypoint, count(*) AS jobs
    -- Ordered, so that it is a scan of the owners' index; no limit, but a planner that does not know.
    FROM (
        SELECT entrypoint, status
        FROM {queue_table}
        WHERE queue_manager_id >= '00000000-0000-0000-0000-000000000000'
        ORDER BY queue_manager_id
        LIMIT (SELECT NULL::bigint)
    ) AS owned
    -- The status too: a row that somebody has edited must not take a seat for ever.
    WHERE entrypoint = ANY((SELECT $2::text[])::text[]) AND status = 'picked'
    GROUP BY entrypoint
),
-- Limited entrypoints with room, and how many jobs this claim may take of each.
vacant AS MATERIALIZED (
    SELECT wanted.entrypoint, coalesce(picked.jobs, 0) AS taken,
        least($1::bigint, wanted.seats - coalesce(picked.jobs, 0)) AS free
    FROM wanted
    LEFT JOIN picked USING (entrypoint)
    WHERE wanted.seats > 0 AND coalesce(picked.jobs, 0) < wanted.seats
),
-- [budget
-- $8: the most jobs that this worker may hold.
room AS MATERIALIZED (
    SELECT greatest(least($1::bigint, $8::bigint - count(*)), 0) AS jobs
    FROM {queue_table}
    WHERE queue_manager_id = $3::uuid AND entrypoint = ANY((SELECT $2::text[])::text[])
),
-- budget]
unlimited AS (
    SELECT job.id, job.priority, job.bytes, wanted.entrypoint
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT *
        FROM (
            SELECT queue.id, queue.priority,
                coalesce(octet_length(queue.payload), 0)
                    + coalesce(pg_column_size(queue.headers), 0) AS bytes
            FROM {queue_table} AS queue
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE queue.entrypoint >= wanted.entrypoint AND queue.entrypoint <= wanted.entrypoint
                AND queue.status = 'queued' AND queue.execute_after < now()
            -- [ordered
            ORDER BY queue.entrypoint, queue.priority DESC, queue.id
            -- ordered]
            -- [due
            ORDER BY queue.entrypoint, queue.execute_after
            -- due]
            LIMIT (SELECT $5::bigint)
            FOR UPDATE OF queue SKIP LOCKED
        ) AS line
        LIMIT 5000
    ) AS job
    WHERE wanted.seats <= 0
),
-- The front of the line is fixed before anything is locked. Were the limit applied to what could be
-- locked, a second worker would slide past the first one's jobs, to seats that are taken.
limited AS (
    SELECT job.id, job.priority, job.bytes, vacant.entrypoint
    FROM vacant
    CROSS JOIN LATERAL (
        SELECT id
        FROM (
            SELECT queue.id
            FROM {queue_table} AS queue
            CROSS JOIN generate_series(1, (SELECT 1)) AS fan
            WHERE queue.entrypoint >= vacant.entrypoint AND queue.entrypoint <= vacant.entrypoint
                AND queue.status = 'queued' AND queue.execute_after < now()
            -- [ordered
            ORDER BY queue.entrypoint, queue.priority DESC, queue.id
            -- ordered]
            -- [due
            ORDER BY queue.entrypoint, queue.execute_after
            -- due]
            LIMIT vacant.free
        ) AS line
        LIMIT 5000
    ) AS front
    CROSS JOIN LATERAL (
        SELECT id, priority,
            coalesce(octet_length(payload), 0) + coalesce(pg_column_size(headers), 0) AS bytes
        FROM {queue_table}
        -- As text, so that no index of queued jobs is a choice: they have the id further back.
        WHERE id = front.id AND status::text = 'queued' AND execute_after < now()
        FOR UPDATE SKIP LOCKED
    ) AS job
),
-- [rescue
-- A stale job is counted already and keeps its seat, so no limit applies: else dead workers could
-- fill an entrypoint for ever.
stale AS (
    SELECT id, priority, entrypoint,
        coalesce(octet_length(payload), 0) + coalesce(pg_column_size(headers), 0) AS bytes
    FROM {queue_table}
    WHERE status = 'picked' AND heartbeat < now() - (SELECT $7::interval)
        AND entrypoint = ANY((SELECT $2::text[])::text[]) AND execute_after < now()
    ORDER BY priority DESC, id
    LIMIT (SELECT $1::bigint)
    FOR UPDATE SKIP LOCKED
),
-- rescue]
candidate AS (
    SELECT id, priority, bytes, entrypoint, seated, aside,
        (~priority)::bigint * 16384
            + row_number() OVER (PARTITION BY entrypoint, priority ORDER BY id) AS turn
    FROM (
        SELECT id, priority, bytes, entrypoint, false AS seated, false AS aside FROM unlimited
        UNION ALL
        SELECT id, priority, bytes, entrypoint, true, true FROM limited
        -- [rescue
        UNION ALL
        SELECT id, priority, bytes, entrypoint, false, true FROM stale
        -- rescue]
    ) AS job
),
-- include compat/parts/known
best AS MATERIALIZED (
    SELECT id, priority, entrypoint, seated
    FROM (
        SELECT id, priority, entrypoint, seated, turn,
            sum(bytes) OVER (ORDER BY turn, id ROWS UNBOUNDED PRECEDING) - bytes AS before
        FROM known
    ) AS job
    WHERE before < (SELECT $4::bigint)
    ORDER BY turn, id
    -- [fixed
    LIMIT (SELECT $1::bigint)
    -- fixed]
    -- [budget
    LIMIT (SELECT jobs FROM room)
    -- budget]
),
-- Of the seats 0 to taken + free - 1 at least `free` are free: at most `taken` are not.
seats AS (
    SELECT vacant.entrypoint, seat.slot,
        row_number() OVER (PARTITION BY vacant.entrypoint ORDER BY seat.slot) AS nth
    FROM vacant
    CROSS JOIN LATERAL generate_series(0, vacant.taken + vacant.free - 1) AS seat (slot)
    WHERE NOT EXISTS (
        SELECT FROM {queue_table} AS holder
        WHERE holder.entrypoint = vacant.entrypoint AND holder.status = 'picked'
            AND holder.slot = seat.slot
    )
),
seating AS (
    SELECT job.id, seats.slot
    FROM (
        SELECT id, entrypoint,
            row_number() OVER (PARTITION BY entrypoint ORDER BY priority DESC, id) AS nth
        FROM best
        WHERE seated
    ) AS job
    JOIN seats USING (entrypoint, nth)
),
claimed AS (
    UPDATE {queue_table} AS job
    SET status = 'picked', updated = statement_timestamp(), heartbeat = statement_timestamp(),
        queue_manager_id = $3::uuid,
        slot = CASE WHEN job.status = 'picked' THEN job.slot ELSE seating.slot END
    FROM best
    LEFT JOIN seating ON seating.id = best.id
    WHERE job.id = best.id AND (NOT best.seated OR seating.slot IS NOT NULL)
        -- [relaxed
        AND (SELECT setting FROM relaxed) = 'off'
        -- relaxed]
    RETURNING job.id, job.priority, job.entrypoint, job.payload, job.attempts, job.headers,
        job.created, job.execute_after, job.updated, job.slot
),
logged AS (
    INSERT INTO {queue_table_log} (job_id, status, entrypoint, priority)
    SELECT id, 'picked', entrypoint, priority FROM claimed
)
-- As in claim.sql.
SELECT string_agg(record_send(job), ''::bytea ORDER BY job.priority DESC, job.id) AS jobs,
    (SELECT count(*) FROM known) > count(*) AS large,
    -- [all
    false
    -- all]
    -- [some
    (SELECT turn FROM horizon) IS NOT NULL
    -- some]
    AS cut,
    pg_relation_size('{queue_table}') AS size
FROM (
    SELECT id::bigint, priority, attempts, created, execute_after, updated, slot::bigint,
        convert_to(entrypoint, 'UTF8') AS entrypoint, payload,
        convert_to(headers::text, 'UTF8') AS headers
    FROM claimed
) AS job
