"""When tasks are handed out and taken back: waiting polls, leases, and who speaks for a node."""
