"""Executors: each runs a plan in a fresh capsule and tells how it ended."""
