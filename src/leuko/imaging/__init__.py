"""Untrusted bytes in, RGB pixels out, and the one description of cropping and resizing."""
