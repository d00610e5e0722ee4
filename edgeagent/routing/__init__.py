"""Which model or tool answers a request, decided from the request alone."""
