-- The job $1. $2 to $4 are not needed here.
SELECT id, priority, entrypoint, created, execute_after, attempts, status::text AS status, updated,
    heartbeat, queue_manager_id, slot, dedupe_key, octet_length(payload) AS payload_bytes,
    -- [payload
    substring(payload FOR 65536) AS payload, left(headers::text, 65536) AS headers,
    -- payload]
    $2::text IS NULL AND $3::timestamptz IS NULL AND $4::bigint IS NULL AS unhinted,
    false AS cut
FROM {queue_table}
WHERE id = $1::bigint
