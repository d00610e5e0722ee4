"""Knowledge bases as their owners use them: documents, vector stores, search, answers that cite."""
