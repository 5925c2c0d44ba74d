-- A page of the queue: $1 jobs from position $2, with the statuses $3 and entrypoints $4 where given.
SELECT * FROM {queue_table}
WHERE ($3::text[] IS NULL OR status::text = ANY($3::text[]))
    AND ($4::text[] IS NULL OR entrypoint = ANY($4::text[]))
ORDER BY priority DESC, id
LIMIT $1::bigint OFFSET $2::bigint
