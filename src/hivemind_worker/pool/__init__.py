"""The Node Pool: keeps tasks, hands them to nodes under leases, takes exactly one result for each."""
