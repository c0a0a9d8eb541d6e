"""Fencing a task without an engine: bubblewrap, control groups, system call filter."""
