-- Delete all jobs at once.
--
-- The lock on each table keeps out the statements of workers, some of which have locked another one
-- by then that this wants next: a deadlock, of which they would be the victims as often as not. So
-- this gives way, before the server looks for deadlocks after its default of a second, and tries
-- again. Should it be in vain, something else holds a table for long, and this waits in earnest.
DO $$
DECLARE
    former CONSTANT text := current_setting('lock_timeout');
BEGIN
    FOR attempt IN 1..50 LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '200ms', true);
            TRUNCATE {ready_table}, {deferred_table}, {lease_table}, {held_table}, {dedupe_table};
            PERFORM set_config('lock_timeout', former, true);
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(random() / 20);
        END;
    END LOOP;
    TRUNCATE {ready_table}, {deferred_table}, {lease_table}, {held_table}, {dedupe_table};
END
$$
