-- The worker $2 is alive and runs the jobs $1; returns those of them that are still its own.
-- The owner is compared so that its index is no choice, as in finish.sql.
UPDATE {queue_table}
SET heartbeat = now()
WHERE id = ANY($1::bigint[]) AND queue_manager_id IS NOT DISTINCT FROM $2::uuid
    AND status = 'picked'
RETURNING id
