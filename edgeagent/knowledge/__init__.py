"""Documents of a knowledge base: parsed in a worker of their own, cut into chunks, found again and cited."""
