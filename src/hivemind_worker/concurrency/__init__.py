"""Tools for many things at once: stopping, supervision, periodic work, backoff. They know nothing about tasks."""
