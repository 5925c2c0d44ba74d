-- Size and persistence of the tables named $1.
SELECT c.relname::text AS table_name,
    CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' WHEN 'p' THEN 'LOGGED'
        ELSE c.relpersistence::text END AS persistence,
    c.reltuples::bigint AS estimated_rows,
    pg_size_pretty(pg_total_relation_size(c.oid)) AS total_size
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema_expr} AND c.relname = ANY($1::text[]) AND c.relkind = 'r'
ORDER BY c.relname
