"""Run the command line: the command ``leuko``, or ``python -m leuko``."""

import sys


def main() -> None:
    """Load the command line and run it; stop quietly where Ctrl-C comes while it loads."""
    from leuko.cli.streams import leave_streams, open_streams

    open_streams()
    try:
        from leuko.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(130) from None
    except Exception as error:
        from leuko.support.packages import fault_behind

        fault = fault_behind(error)
        if fault is None:
            raise
        sys.stderr.write(f"Error: {fault}\n")
        raise SystemExit(fault.exit_code) from None
    finally:
        leave_streams()


if __name__ == "__main__":
    main()
