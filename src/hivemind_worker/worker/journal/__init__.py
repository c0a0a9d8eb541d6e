"""The worker's own record of what it holds: appended, on the disk, then acted upon."""
