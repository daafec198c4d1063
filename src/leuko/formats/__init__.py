"""Models of other people's: what they are, and how they become bundles."""
