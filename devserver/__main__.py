"""`python -m devserver`, and what the console script calls: one process's role is decided here."""

import gc
import os
import signal


def main() -> None:
    """Be a child if a supervisor made this process, else read the command line."""
    gc.disable()  # imports leave nothing to collect; `launch` goes on when they are done
    if os.getpid() == 1:  # of a container: the kernel drops signals for which it has no handler
        signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(128 + signum))
    from devserver.process import adopt

    channel = adopt()
    if channel is not None:
        from devserver.child.main import run
        from devserver.django.detection import program
        from devserver.process.ending import leave
        from devserver.process.prompt import debugged

        # Debuggers have threads of their own, and more to do at the end than exit handlers say.
        leave(run(channel, program), whole=debugged())
    raises = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:  # nothing has begun that Ctrl-C could leave half done
        signal.signal(signal.SIGINT, lambda signum, frame: os._exit(128 + signum))
    from devserver.cli import main as command_line

    if raises:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
