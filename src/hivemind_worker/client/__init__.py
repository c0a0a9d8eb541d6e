"""The submitter: gives tasks to a pool, follows them, fetches what they made."""
