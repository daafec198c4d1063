"""What the doors share: from arguments to results, end to end."""
