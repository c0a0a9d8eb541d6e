"""What a node or pool says of its own health, for humans and probes."""
