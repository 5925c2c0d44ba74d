-- The worker $2 is alive and works on the leases $1; returns those that are still its own, with the
-- bits of the jobs that are not.
WITH
-- include lease/parts/relaxed
alive AS (
    UPDATE {lease_table}
    SET heartbeat = statement_timestamp()
    WHERE id = ANY(ARRAY(
        SELECT id
        FROM {lease_table}
        WHERE id = ANY($1::text::bigint[]) AND worker IS NOT DISTINCT FROM $2::uuid
        ORDER BY id
        FOR UPDATE
    ))
        -- [relaxed
        AND (SELECT setting FROM relaxed) = 'off'
        -- relaxed]
    RETURNING id, done
)
SELECT id, done::text AS done FROM alive
