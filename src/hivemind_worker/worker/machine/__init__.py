"""This machine: what it has, and how it is doing."""
