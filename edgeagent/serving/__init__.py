"""What happens to a request between the API and the pool."""
