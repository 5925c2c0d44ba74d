-- The id that was given out last.
SELECT last_value FROM {ids_sequence}
