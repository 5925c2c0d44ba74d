-- The $2 first entrypoints with queued jobs from $1 on, by one probe of the index each.
WITH RECURSIVE
-- include compat/web/parts/name first=$1::text most=$2
SELECT entrypoint FROM name ORDER BY n
