-- The worker $1 is alive, and with it all its leases. What somebody has locked is at that moment taken
-- from the worker, or ends: nobody waits for it.
UPDATE {lease_table}
SET heartbeat = statement_timestamp()
WHERE id = ANY(ARRAY(
    SELECT id
    FROM {lease_table}
    WHERE worker = $1::uuid
    FOR UPDATE SKIP LOCKED
))
