"""The way out of tasks that may have one: every connection is asked for, checked and made here, by the worker."""
