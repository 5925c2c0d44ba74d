-- The worker $1 is alive, and with it everything that it has picked. What somebody has locked is at
-- that moment taken from the worker, or ends: nobody waits for it.
UPDATE {queue_table}
SET heartbeat = statement_timestamp()
WHERE id = ANY(ARRAY(
    SELECT id
    FROM {queue_table}
    WHERE queue_manager_id = $1::uuid AND status = 'picked'
    FOR UPDATE SKIP LOCKED
))
