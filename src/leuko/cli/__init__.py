"""The command line: one thin file for each group of commands; heavy imports inside commands."""
