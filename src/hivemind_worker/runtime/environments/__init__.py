"""What tasks need beside themselves: environments of packages, how they are named, made and found again."""
