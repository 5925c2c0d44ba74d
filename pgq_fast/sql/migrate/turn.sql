-- The fence of a statement of the migration $1: it does nothing unless there is a row in here. As long as
-- the statement is under way, no other migration can begin.
turn AS MATERIALIZED (
    UPDATE {migration_table} SET alive_until = clock_timestamp() + life
    WHERE token = $1::uuid AND alive_until > clock_timestamp()
    RETURNING token
),
