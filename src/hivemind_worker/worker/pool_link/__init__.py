"""The line to the Node Pool: the channel, the calls, the session, the transfer of files."""
