"""The worker node: it registers, takes attempts, runs them and reports how they ended."""
