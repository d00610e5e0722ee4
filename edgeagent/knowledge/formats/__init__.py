"""Readers of document formats. Worker side: the daemon imports none of them."""
