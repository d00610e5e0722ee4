"""What concerns the daemon as one process: that there is one of it, and its very first key."""
