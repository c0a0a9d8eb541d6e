"""What is written about what happens: log events as JSON lines, with secrets removed and sizes bounded."""
