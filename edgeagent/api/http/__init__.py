"""HTTP for all dialects: the layers before the routes, and the responses."""
