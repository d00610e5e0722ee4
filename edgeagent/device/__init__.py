"""What this device is, what it can do, and how a model should be run on it. See README.md."""
