"""The tests' own images are not of a registry: what is said to executors and services that run them."""

from __future__ import annotations

from hivemind_worker.runtime.docker import image_access, pulled

LISTED = ("hivemind-test/**",)
VARIABLES = {"HIVEMIND_ALLOWED_IMAGES": ",".join(LISTED)}

ANY = pulled.Access(image_access.Rules(images=("**",)))
"""For tests of something else: tasks may run every image."""
