"""Calls of Home Assistant's tools by rules: from the user's words to devices and arguments."""
