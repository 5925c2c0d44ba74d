-- The worker $2 is alive and runs the jobs $1; returns those of them that are still its own.
-- Owner and status are compared so that their indexes are no choice, as in finish.sql.
UPDATE {queue_table}
SET heartbeat = statement_timestamp()
WHERE id = ANY($1::text::bigint[]) AND queue_manager_id IS NOT DISTINCT FROM $2::uuid
    AND status::text = 'picked'
RETURNING id
