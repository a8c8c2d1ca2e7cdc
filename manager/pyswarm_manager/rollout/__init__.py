"""A change of a service's spec being carried out: progress, batches, failure, rollback, receipt. Pure."""
