-- The migration <token> is over.
DO $$
BEGIN
    IF to_regclass('{migration_table}') IS NOT NULL THEN
        IF EXISTS (SELECT FROM {migration_table} WHERE token = '<token>') THEN
            DROP TABLE {migration_table};
        END IF;
    END IF;
END
$$;
