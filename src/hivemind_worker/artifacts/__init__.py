"""What tasks take in and give back, as files named by their content."""
