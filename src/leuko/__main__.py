"""Run the command line: the command ``leuko``, or ``python -m leuko``."""

import sys


def main() -> None:
    """Load the command line and run it; stop quietly where Ctrl-C comes while it loads."""
    try:
        from leuko.cli.main import main as run
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
