"""Are we fit: what is looked at, within which time, and what is told of it."""
