"""One attempt on its node, from acceptance to the acknowledged report."""
