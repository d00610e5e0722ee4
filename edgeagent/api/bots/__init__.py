"""Bots for web pages, and the script that shows them."""
