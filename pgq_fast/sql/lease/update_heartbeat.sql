-- Somebody vouches for the jobs $1, and so for the leases that they are in.
UPDATE {lease_table}
SET heartbeat = statement_timestamp()
WHERE id = ANY(ARRAY(
    -- Locked by id, as everybody does it.
    SELECT id
    FROM {lease_table}
    WHERE id = ANY(ARRAY(
        SELECT lease.id
        FROM {lease_table} AS lease
        CROSS JOIN LATERAL unnest(lease.ids) AS job (id)
        JOIN unnest($1::bigint[]) AS wanted (id) ON wanted.id = job.id
    ))
    ORDER BY id
    FOR UPDATE
))
