-- Which of the relations $1 (schemas), $2 (names) are there, and of which kind, by their place.
SELECT wanted.place, c.relkind::text AS kind, c.relpersistence = 'u' AS unlogged
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (schema, name, place)
JOIN pg_namespace AS ns ON ns.nspname = coalesce(wanted.schema, current_schema())
JOIN pg_class AS c ON c.relnamespace = ns.oid AND c.relname = wanted.name
ORDER BY wanted.place
