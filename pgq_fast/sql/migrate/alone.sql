-- The beginning of a transaction of several statements, sent together: one at a time for an
-- installation, and not at the same time as an upgrade, whose lock this is.
--
-- What is read here is read anew by each statement, also where sessions have one snapshot by default.
-- Locks are not waited for long: whoever comes later waits behind this one.
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '200ms';
SET LOCAL client_min_messages = warning;
SELECT pg_advisory_xact_lock(<key>);
-- [fenced
DO $$
BEGIN
    UPDATE {migration_table} SET alive_until = clock_timestamp() + life
    WHERE token = '<token>' AND alive_until > clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this migration has lapsed' USING ERRCODE = 'PGQ02';
    END IF;
END
$$;
-- fenced]
