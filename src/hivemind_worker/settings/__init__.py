"""What the owner of this machine decides: every setting explained once, and where its value came from.

Importing this room costs nothing; `schema` brings pydantic and is imported by whoever needs a value.
"""
