-- Whether rescue.sql would find a lease: of the entrypoints $2, without a heartbeat for $1. To be asked
-- first: a statement that could insert jobs tells those who wait even if it inserts none.
SELECT EXISTS (
    SELECT FROM {lease_table}
    WHERE heartbeat < now() - $1::interval AND entrypoint = ANY($2::text[])
) AS stale
