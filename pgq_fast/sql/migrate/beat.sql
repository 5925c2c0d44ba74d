-- Say that the migration $1 goes on; whether it may, and what time it is.
WITH turn AS MATERIALIZED (
    UPDATE {migration_table} SET alive_until = clock_timestamp() + life
    WHERE token = $1::uuid AND alive_until > clock_timestamp()
    RETURNING token
)
SELECT EXISTS (SELECT FROM turn) AS mine, clock_timestamp() AS at
