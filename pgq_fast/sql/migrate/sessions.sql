-- The sessions that have locks on the relations $1 (schemas), $2 (names).
SELECT DISTINCT locks.pid
FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
JOIN pg_namespace AS ns ON ns.nspname = coalesce(wanted.schema, current_schema())
JOIN pg_class AS c ON c.relnamespace = ns.oid AND c.relname = wanted.name
JOIN pg_locks AS locks ON locks.relation = c.oid AND locks.granted
    AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
WHERE locks.pid <> pg_backend_pid()
ORDER BY locks.pid
