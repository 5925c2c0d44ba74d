-- Whether the arrays of a lease fit together, as claims make them: where somebody has shortened one, it
-- is not known any more which payload is whose. Looked at a lease, for each is unpacked for this.
cardinality(ids) = length(done) AND cardinality(priorities) = length(done)
    AND cardinality(attempts) = length(done) AND cardinality(created) = length(done)
    AND cardinality(execute_after) = length(done) AND cardinality(payloads) = length(done)
    AND coalesce(cardinality(dedupe_keys), length(done)) = length(done)
    AND coalesce(cardinality(headers), length(done)) = length(done) AS fits
