"""Bytes and words: the gRPC contract with the Node Pool, and its translation to the words of `task`."""
