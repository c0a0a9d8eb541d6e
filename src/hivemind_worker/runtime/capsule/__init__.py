"""What is said to a running capsule, as bytes and as words; and the small program inside it."""
