"""The window: a page on which the owner of a machine sees how its worker is. It shows, and decides nothing."""
