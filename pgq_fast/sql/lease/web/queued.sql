-- A page of the jobs of the entrypoint $1 that may run now, in the order of claims, behind the job
-- with the priority $2 and the id $3. Looks at $7 jobs at most; see parts/page.sql for $4 to $6, $8.
WITH
looked AS MATERIALIZED (
    SELECT job.*, row_number() OVER (ORDER BY priority DESC, id) AS place, true AS fits
    FROM (
        SELECT id, priority, entrypoint, created, execute_after, attempts,
            octet_length(payload) AS payload_bytes
        FROM {ready_table}
        WHERE entrypoint = $1::text AND (~priority, id) > (~($2::integer), $3::bigint)
            AND ~priority <= ~($4::integer)
        ORDER BY ~priority, id
        LIMIT $7::bigint
    ) AS job
),
-- include common/web/parts/page lowest=$4 highest=$5 older=$6 page=$8
