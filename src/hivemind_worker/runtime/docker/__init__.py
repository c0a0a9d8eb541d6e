"""The only door to the container engine, and all that is said through it."""
