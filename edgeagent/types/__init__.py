"""Plain data that crosses floors, one noun per file."""
