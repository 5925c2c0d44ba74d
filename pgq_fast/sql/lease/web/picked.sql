-- A page of the running jobs, of the entrypoint $1 where given, by leases, the one that was made
-- first first, behind the job at the place $3 of the lease $2. Looks at leases until they have $7
-- jobs, and at 1000 at most; see parts/page.sql for $4 to $6, $8.
WITH
following AS MATERIALIZED (
    SELECT id, done FROM {lease_table}
    WHERE id >= $2::bigint
    ORDER BY id
    LIMIT 1000
),
chosen AS MATERIALIZED (
    SELECT id
    FROM (
        SELECT id, sum(length(done)) OVER (ORDER BY id) - length(done) AS before FROM following
    ) AS lease
    WHERE before < $7::bigint
),
looked AS MATERIALIZED (
    SELECT job.id, coalesce(job.priority, 0) AS priority, lease.entrypoint, job.created,
        job.execute_after, job.attempts, NULL::integer AS payload_bytes,
        lease.picked_at AS updated, lease.heartbeat, lease.worker AS queue_manager_id,
        lease.id AS lease, job.place AS tie, (SELECT max(id) FROM following) AS last_lease,
        (SELECT count(*) FROM following) >= 1000 AS more_leases,
        row_number() OVER (ORDER BY lease.id, job.place) AS place,
        ($1::text IS NULL OR lease.entrypoint = $1::text)
            AND substring(lease.done, job.place::integer, 1) = B'0' AND job.id IS NOT NULL AS fits
    FROM chosen
    JOIN {lease_table} AS lease ON lease.id = chosen.id
    CROSS JOIN LATERAL unnest(
        lease.ids, lease.priorities, lease.created, lease.execute_after, lease.attempts
    ) WITH ORDINALITY AS job (id, priority, created, execute_after, attempts, place)
    WHERE (lease.id, job.place) > ($2::bigint, $3::bigint)
),
-- include common/web/parts/page lowest=$4 highest=$5 older=$6 page=$8
