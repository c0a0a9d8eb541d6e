"""Generated from nodepool.proto by `make proto`; never edited."""
