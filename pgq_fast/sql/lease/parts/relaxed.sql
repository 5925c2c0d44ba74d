-- [relaxed
-- The commit does not wait for the disk. A crash of the server that loses it leaves things as they
-- were, so that jobs run again. Local to this statement's own transaction.
relaxed AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
),
-- relaxed]
