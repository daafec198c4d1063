"""Run the command line by ``python -m leuko``."""

from leuko.cli.main import main

if __name__ == "__main__":
    main()
