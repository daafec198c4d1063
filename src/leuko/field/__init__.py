"""Whole fields and slides: white cells found, sorted and counted once."""
