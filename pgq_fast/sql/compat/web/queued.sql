-- A page of the jobs of the entrypoint $1 that may run now, in the order of claims, behind the job
-- with the priority $2 and the id $3. Looks at $7 jobs at most; see parts/page.sql for $4 to $6, $8.
WITH
looked AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY priority DESC, id) AS place, execute_after <= now() AS fits
    FROM (
        SELECT *
        FROM (
            (
                SELECT id, priority, entrypoint, created, execute_after, attempts,
                    octet_length(payload) AS payload_bytes
                FROM {queue_table}
                WHERE status = 'queued' AND entrypoint = $1::text AND priority = $2::integer
                    AND id > $3::bigint
                ORDER BY id
                LIMIT $7::bigint
            )
            UNION ALL
            (
                SELECT id, priority, entrypoint, created, execute_after, attempts,
                    octet_length(payload)
                FROM {queue_table}
                WHERE status = 'queued' AND entrypoint = $1::text AND priority < $2::integer
                    AND priority >= $4::integer
                ORDER BY priority DESC, id
                LIMIT $7::bigint
            )
        ) AS job
        ORDER BY priority DESC, id
        LIMIT $7::bigint
    ) AS job
),
-- include common/web/parts/page lowest=$4 highest=$5 older=$6 page=$8
