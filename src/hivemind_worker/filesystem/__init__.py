"""Private folders and files: how everything that the product keeps is made, checked and repaired. Nothing else does."""
