"""What every room needs and no user meets: files written whole, threads, the machine, silence."""
