-- What PostgreSQL named after the table <old> when it was created, by its new name <new>. What would be
-- too long keeps its name, which nothing depends on.
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT conname, '<new>' || substr(conname, length('<old>') + 1) AS wanted
        FROM pg_constraint
        WHERE conrelid = '<table>'::regclass AND contype IN ('p', 'u', 'n')
            AND starts_with(conname, '<old>_')
    LOOP
        IF length(held.wanted) < 64 THEN
            EXECUTE format('ALTER TABLE <table> RENAME CONSTRAINT %I TO %I', held.conname, held.wanted);
        END IF;
    END LOOP;
    FOR held IN
        SELECT s.oid::regclass AS sequence, '<new>' || substr(s.relname, length('<old>') + 1) AS wanted
        FROM pg_depend AS d
        JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = '<table>'::regclass AND d.deptype IN ('a', 'i')
            AND starts_with(s.relname, '<old>_')
    LOOP
        IF length(held.wanted) < 64 THEN
            EXECUTE format('ALTER SEQUENCE %s RENAME TO %I', held.sequence, held.wanted);
        END IF;
    END LOOP;
END
$$;
