"""One file per verb: its options, what it asks, what it prints."""
