"""The pool's calls: read the request, ask the store, write the answer."""
