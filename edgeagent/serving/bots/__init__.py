"""Service bots: one file each, answered by the command line or by the daemon itself."""
