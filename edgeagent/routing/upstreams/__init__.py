"""Engines elsewhere, as pure decisions: who may use them, which one answers, what a fault means, formats."""
