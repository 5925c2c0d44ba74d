-- Claim up to $1 jobs of the entrypoints $2 for the worker $3, best priority first; within a priority
-- a job of each entrypoint in turn, so that a flood of one does not hold up the others, and of each
-- entrypoint the oldest first. The payloads may reach $4 bytes; one job is always taken. Of each
-- entrypoint only jobs behind the place ($5, $6) in the order of claims are looked at, and no more than
-- $8: where it has more, nothing is taken that would come after those.
--
-- A row for each lease with its jobs as arrays, one of NULLs where there is none; whether jobs were left
-- that could have been taken, and whether an entrypoint has more than were looked at; the size of the
-- tables, whether an entrypoint has fewer jobs than could have been taken (where there are limits), the
-- number of the lease's jobs and the place of the last, and whether this claim had no turn.
--
-- Where entrypoints have concurrency limits, $9 has them in their order, 0 for none.
--
-- Parameters stand in subqueries so that a plan for their values promises no more than a plan for
-- any: with one that does, PostgreSQL would plan each execution anew.
WITH
-- include lease/parts/relaxed
-- [ending
-- The leases $9, all of whose jobs were successful, end in the same commit.
-- include lease/parts/ended leases=$9 owner=$3 default=$10 exceptions=$11
-- ending]
-- Large claims take turns, a few at a time: a claim passes over all that others are about to take, so
-- that many at once would do little else. Whoever gets no turn claims nothing, and tries again. $7 says
-- whether this one has to take a turn.
turn AS MATERIALIZED (
    SELECT CASE WHEN (SELECT $7::bool) THEN
        -- include lease/parts/turn
    ELSE true END AS mine
),
wanted AS MATERIALIZED (
    SELECT wanted.number, wanted.entrypoint, coalesce(latest.rank, wanted.rank)::integer AS rank,
        coalesce(latest.id, wanted.id) AS id
        -- [limited
        , wanted.seats
        -- limited]
    FROM unnest(
        (SELECT $2::text[]), (SELECT $5::text::bigint[]), (SELECT $6::text::bigint[])
        -- [limited
        , (SELECT $9::text::bigint[])
        -- limited]
    ) WITH ORDINALITY AS wanted (
        entrypoint, rank, id
        -- [limited
        , seats
        -- limited]
        , number
    )
    -- Where other workers have come to since. Without this each would pass over all jobs of all others.
    LEFT JOIN LATERAL (
        SELECT rank, id
        FROM (
            SELECT ~priorities[cardinality(ids)] AS rank, ids[cardinality(ids)] AS id
            FROM (
                SELECT entrypoint, priorities, ids
                FROM {lease_table}
                ORDER BY id DESC
                LIMIT 20
            ) AS lease
            WHERE lease.entrypoint = wanted.entrypoint
            LIMIT 1
        ) AS latest
        WHERE wanted.id > '-9223372036854775808'::bigint AND (rank, id) > (wanted.rank, wanted.id)
    ) AS latest ON true
    WHERE (SELECT mine FROM turn)
        -- [ending
        -- Leases and keys are locked before queued jobs, or this and a cancellation could wait for
        -- each other.
        AND (SELECT count(*) FROM keyed) >= 0
        -- ending]
),
-- [budget
-- $10: the most jobs that this worker may hold.
room AS MATERIALIZED (
    SELECT greatest(
        least($1::bigint, $10::bigint - coalesce(sum(length(done) - bit_count(done)), 0)), 0
    ) AS jobs
    FROM {lease_table}
    WHERE worker = $3::uuid AND entrypoint = ANY((SELECT $2::text[])::text[])
),
-- budget]
-- One ordered index scan an entrypoint, from the place to the entrypoint's end. A job that another
-- worker is about to claim is skipped, so that workers neither wait for each other nor claim the same
-- job.
--
-- Unlike in compat/claim.sql nothing has to make sorting look dear: the statement has a plan of its own
-- for each class of the tables' size, and only on the smallest is sorting the cheaper way.
--
-- The number that no claim exceeds keeps what is above it cheap in the planner's eyes: from a certain
-- cost on PostgreSQL compiles a statement, which takes many times as long as to run this one.
next AS (
    -- [single
    SELECT job.place, job.bytes
    -- single]
    -- [several
    SELECT job.place, job.id, job.priority, job.bytes, wanted.entrypoint, wanted.number
    -- several]
    FROM wanted
    CROSS JOIN LATERAL (
        SELECT *
        FROM (
            SELECT ready.ctid AS place, ready.id, ready.priority,
                coalesce(octet_length(ready.payload), 0)
                    + coalesce(pg_column_size(ready.headers), 0) AS bytes
            FROM {ready_table} AS ready
            WHERE (ready.entrypoint, ~ready.priority, ready.id)
                    > (wanted.entrypoint, wanted.rank, wanted.id)
                AND ready.entrypoint <= wanted.entrypoint
            ORDER BY ready.entrypoint, ~ready.priority, ready.id
            LIMIT (SELECT least($1::bigint, $8::bigint))
            FOR UPDATE OF ready SKIP LOCKED
        ) AS line
        LIMIT 5000
    ) AS job
    -- [limited
    WHERE wanted.seats <= 0
    -- limited]
),
-- [limited
-- Jobs that count against a limit, seated or not.
picked AS MATERIALIZED (
    SELECT entrypoint, sum(length(done) - bit_count(done)) AS jobs
    FROM {lease_table}
    WHERE entrypoint = ANY((SELECT $2::text[])::text[])
    GROUP BY entrypoint
),
-- Limited entrypoints with room, and how many jobs this claim may take of each.
vacant AS MATERIALIZED (
    SELECT wanted.entrypoint, wanted.number, wanted.rank, wanted.id,
        coalesce(picked.jobs, 0) AS taken,
        least($1::bigint, wanted.seats - coalesce(picked.jobs, 0)) AS free
    FROM wanted
    LEFT JOIN picked USING (entrypoint)
    WHERE wanted.seats > 0 AND coalesce(picked.jobs, 0) < wanted.seats
),
-- The front of the line is fixed before anything is locked. Were the limit applied to what could be
-- locked, a second worker would slide past the first one's jobs, to seats that are taken.
seated AS (
    SELECT job.place, job.id, job.priority, job.bytes, vacant.entrypoint, vacant.number
    FROM vacant
    CROSS JOIN LATERAL (
        SELECT place
        FROM (
            SELECT ready.ctid AS place
            FROM {ready_table} AS ready
            WHERE (ready.entrypoint, ~ready.priority, ready.id)
                    > (vacant.entrypoint, vacant.rank, vacant.id)
                AND ready.entrypoint <= vacant.entrypoint
            ORDER BY ready.entrypoint, ~ready.priority, ready.id
            LIMIT vacant.free
        ) AS line
        LIMIT 5000
    ) AS front
    CROSS JOIN LATERAL (
        SELECT ready.ctid AS place, ready.id, ready.priority,
            coalesce(octet_length(ready.payload), 0) + coalesce(pg_column_size(ready.headers), 0)
                AS bytes
        FROM {ready_table} AS ready
        WHERE ready.ctid = front.place
        FOR UPDATE OF ready SKIP LOCKED
    ) AS job
),
-- limited]
-- [single
-- Of one entrypoint they come in order. Mostly all fit; to add up what precedes each takes longer than
-- to read it.
gathered AS MATERIALIZED (
    SELECT count(*) AS jobs, sum(bytes) AS bytes, array_agg(place) AS places FROM next
),
best AS MATERIALIZED (
    SELECT CASE WHEN bytes <= (SELECT $4::bigint) THEN places ELSE ARRAY(
        SELECT place
        FROM (
            SELECT place, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS before FROM next
        ) AS job
        WHERE before < (SELECT $4::bigint)
    ) END AS places
    FROM gathered
),
-- single]
-- [several
-- Priority and turn as one number, which is quick to compare: no claim exceeds 5000 jobs.
candidate AS (
    SELECT place, id, priority, bytes, entrypoint, number, seated,
        (~priority)::bigint * 8192
            + row_number() OVER (PARTITION BY number, priority ORDER BY id) AS turn
    FROM (
        SELECT place, id, priority, bytes, entrypoint, number, false AS seated FROM next
        -- [limited
        UNION ALL
        SELECT place, id, priority, bytes, entrypoint, number, true FROM seated
        -- limited]
    ) AS job
),
-- include common/parts/horizon aside=seated entrypoint=number looks=$8
known AS MATERIALIZED (
    SELECT place, id, priority, entrypoint, seated, turn,
        sum(bytes) OVER (ORDER BY turn, id ROWS UNBOUNDED PRECEDING) - bytes AS before
    FROM candidate
    WHERE coalesce(turn <= (SELECT turn FROM horizon), true)
),
best AS (
    SELECT place, id, priority, entrypoint, seated
    FROM known
    WHERE before < (SELECT $4::bigint)
    ORDER BY turn, id
    -- [fixed
    LIMIT (SELECT $1::bigint)
    -- fixed]
    -- [budget
    LIMIT (SELECT jobs FROM room)
    -- budget]
),
-- several]
-- [limited
-- Of the seats 0 to taken + free - 1 at least `free` are free: at most `taken` are not. The unique
-- index on seats is what holds a limit across workers: two that see the same free seat cannot both
-- take it, and the second fails as a whole, which means no more than that it claimed nothing.
seats AS (
    SELECT vacant.entrypoint, seat.slot,
        row_number() OVER (PARTITION BY vacant.entrypoint ORDER BY seat.slot) AS nth
    FROM vacant
    CROSS JOIN LATERAL generate_series(0, vacant.taken + vacant.free - 1) AS seat (slot)
    WHERE NOT EXISTS (
        SELECT FROM {lease_table} AS holder
        WHERE holder.entrypoint = vacant.entrypoint AND holder.slot = seat.slot
    )
),
seating AS MATERIALIZED (
    SELECT job.id, job.place, seats.slot::bigint AS slot
    FROM (
        SELECT id, place, entrypoint, seated,
            row_number() OVER (PARTITION BY entrypoint ORDER BY priority DESC, id) AS nth
        FROM best
    ) AS job
    LEFT JOIN seats ON job.seated AND seats.entrypoint = job.entrypoint AND seats.nth = job.nth
    WHERE NOT job.seated OR seats.slot IS NOT NULL
),
-- limited]
claimed AS (
    DELETE FROM {ready_table}
    WHERE ctid = ANY(
        -- [single
        (SELECT places FROM best)::tid[]
        -- single]
        -- [several
        ARRAY(
            SELECT place
            -- [limited
            FROM seating
            -- limited]
            -- [unlimited
            FROM best
            -- unlimited]
        )
        -- several]
    )
    -- [relaxed
    AND (SELECT setting FROM relaxed) = 'off'
    -- relaxed]
    RETURNING
        -- [several
        entrypoint,
        -- several]
        id, priority, attempts, created, execute_after, dedupe_key, payload, headers
),
leased AS (
    INSERT INTO {lease_table} (
        worker, picked_at, heartbeat, entrypoint, slot, done, ids, priorities, attempts, created,
        execute_after, dedupe_keys, payloads, headers
    )
    -- DELETE returns its rows in no order. Sorted once before, as PostgreSQL before 16 would sort for
    -- each of the aggregates.
    SELECT $3::uuid, statement_timestamp(), statement_timestamp(),
        -- [single
        (SELECT entrypoint FROM wanted), NULL::bigint,
        -- single]
        -- [several
        entrypoint, slot,
        -- several]
        repeat('0', count(*)::integer)::varbit, array_agg(id),
        array_agg(priority), array_agg(attempts), array_agg(created), array_agg(execute_after),
        CASE WHEN count(dedupe_key) > 0 THEN array_agg(dedupe_key) END,
        array_agg(payload),
        CASE WHEN count(headers) > 0 THEN array_agg(headers) END
    FROM (
        -- [single
        SELECT * FROM claimed ORDER BY ~priority, id
        -- single]
        -- [several
        -- [limited
        SELECT claimed.*, seating.slot FROM claimed JOIN seating USING (id)
        -- limited]
        -- [unlimited
        SELECT claimed.*, NULL::bigint AS slot FROM claimed
        -- unlimited]
        ORDER BY entrypoint, slot, ~priority, id
        -- several]
    ) AS job
    -- [single
    HAVING count(*) > 0
    -- single]
    -- [several
    GROUP BY entrypoint, slot
    -- several]
    RETURNING id, entrypoint, slot, picked_at, ids, priorities, attempts, created, execute_after,
        payloads, headers
)
-- Text is sent as UTF-8 whatever the client's encoding.
SELECT id, convert_to(entrypoint, 'UTF8') AS entrypoint, slot,
    timestamptz_send(picked_at) AS picked_at, array_send(ids) AS ids,
    -- To send an element takes longer than to look at it, and most batches have all the same in these.
    CASE WHEN priorities[1] = ALL(priorities) THEN array_send(priorities[1:1])
        ELSE array_send(priorities) END AS priorities,
    CASE WHEN attempts[1] = ALL(attempts) THEN array_send(attempts[1:1])
        ELSE array_send(attempts) END AS attempts,
    CASE WHEN created[1] = ALL(created) THEN array_send(created[1:1])
        ELSE array_send(created) END AS created,
    CASE WHEN array_ne(execute_after, created) THEN array_send(execute_after) END AS execute_after,
    array_send(payloads) AS payloads,
    CASE WHEN headers IS NOT NULL THEN array_send(ARRAY(
        SELECT convert_to(header.content::text, 'UTF8')
        FROM unnest(headers) WITH ORDINALITY AS header (content, place)
        ORDER BY header.place
    )) END AS headers,
    -- [single
    (SELECT jobs FROM gathered)
    -- single]
    -- [several
    (SELECT count(*) FROM known)
    -- several]
        > (SELECT sum(cardinality(ids)) FROM leased) AS large,
    -- [single
    false
    -- single]
    -- [several
    (SELECT turn FROM horizon) IS NOT NULL
    -- several]
    AS cut,
    tables.size,
    -- [limited
    EXISTS (
        SELECT FROM vacant WHERE free > (
            SELECT count(*) FROM seated WHERE seated.entrypoint = vacant.entrypoint
        )
    ) OR EXISTS (
        SELECT FROM wanted WHERE seats <= 0 AND (SELECT $8::bigint) > (
            SELECT count(*) FROM next WHERE next.entrypoint = wanted.entrypoint
        )
    )
    -- limited]
    -- [unlimited
    false
    -- unlimited]
    AS short,
    cardinality(ids) AS count, ~priorities[cardinality(ids)] AS last_rank,
    ids[cardinality(ids)] AS last_id,
    NOT (SELECT mine FROM turn) AS no_turn
FROM (
    SELECT pg_relation_size('{ready_table}') + pg_relation_size('{lease_table}')
        + pg_relation_size('{deferred_table}') + pg_relation_size('{dedupe_table}') AS size
) AS tables
LEFT JOIN leased ON true
