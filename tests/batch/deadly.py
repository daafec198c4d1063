"""Workers that die for real: ways of life for `Processes`, and a run that is there to be killed.

python deadly.py IMAGES MODEL OUT
"""

from __future__ import annotations

import os
import signal
import sys
import time

POISON, ENDLESS, BUG = b"a picture that kills", b"a picture without end", b"a picture with a bug"


def serve_with_poison(connection, settings) -> None:
    """Some pictures end the worker, some never end, some meet a fault in the decoder."""
    from leuko.batch.processes import serve
    from leuko.imaging import pictures

    usual = pictures.decode_image

    def decode(data, **settings):
        if data == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        if data == ENDLESS:
            time.sleep(3600)
        if data == BUG:
            raise ZeroDivisionError("in the decoder")
        return usual(data, **settings)

    pictures.decode_image = decode
    serve(connection, settings)


def serve_slowly(connection, settings) -> None:
    """There is time to kill it between two pictures."""
    from leuko.batch.processes import serve
    from leuko.imaging import pictures

    usual = pictures.decode_image

    def decode(data, **settings):
        time.sleep(0.005)
        return usual(data, **settings)

    pictures.decode_image = decode
    serve(connection, settings)


def end_at_once(connection, settings) -> None:
    """A worker that cannot start."""
    os._exit(3)


def main() -> None:
    from leuko.batch.processes import Processes
    from leuko.batch.run import predict_to_file
    from leuko.runtime.sources import expand
    from leuko.runtime.zoo import load

    images, model, out = sys.argv[1:]
    bundle = load(model, threads=1).bundle
    with_slow_workers = Processes(bundle, workers=2, life=serve_slowly)
    predict_to_file(expand([images]), out, with_slow_workers, size=16)


if __name__ == "__main__":
    main()
