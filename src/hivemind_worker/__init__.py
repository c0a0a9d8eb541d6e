"""HiveMind Worker: runs tasks for a Node Pool, each in a fresh capsule."""

__version__ = "0.1.0"
