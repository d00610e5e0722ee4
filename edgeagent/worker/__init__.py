"""What every worker process shares: how it is started and what it may still do."""
