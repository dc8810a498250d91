"""The command line: `ptycho …`. Flags come from the configuration classes (specs/configuration.md).

Every command imports what it needs when it runs, so that `ptycho --help` answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from ptycho_core import __version__
from ptycho_core.cli import files, live, pages, priors, running, solving
from ptycho_core.cli.importing import takes_imports
from ptycho_core.errors import PtychoError, is_out_of_memory
from ptycho_core.settings.fields import flag_of

EXIT_INPUT, EXIT_SIGNAL = 2, 128
"""A signal ends with its number beside it: 130 for Ctrl-C."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ptycho")
def cli() -> None:
    """Ptychographic images from physics-informed networks.

    A setting is given by a flag, by an environment variable such as PTYCHO_BATCH_SIZE, or in a file.
    Precedence: flag, environment variable, file.
    """


for command in (
    *running.COMMANDS,
    *solving.COMMANDS,
    *priors.COMMANDS,
    *live.COMMANDS,
    *files.COMMANDS,
    *pages.COMMANDS,
):
    cli.add_command(takes_imports(command))


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, on which a run keeps what it has as on Ctrl-C."""

    def __init__(self, signum: signal.Signals) -> None:
        super().__init__(f"ended by {signum.name}")
        self.signum = signum


PATIENCE = 3
"""Further Ctrl-C that do not break off the saving of what is done."""
SAVING = b"\nEnding: what is done is being saved.\n"


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, once; one that is ignored (nohup) stays so.

    After the first of all, Ctrl-C says that results are being saved, and ends the block only after `PATIENCE` of them.
    """
    taken: dict[int, Any] = {}
    asked = 0

    def stop(number: int, frame: object) -> None:
        nonlocal asked
        asked = max(asked, 1)
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(signal.Signals(number))

    def interrupt(number: int, frame: object) -> None:
        nonlocal asked
        asked += 1
        if not 1 < asked <= 1 + PATIENCE:
            raise KeyboardInterrupt
        with contextlib.suppress(OSError):
            os.write(2, SAVING)  # a stream must not be written to from within itself

    handlers: dict[str, tuple[Any, Any]] = {
        "SIGTERM": (stop, signal.SIG_DFL),
        "SIGHUP": (stop, signal.SIG_DFL),
        "SIGINT": (interrupt, signal.default_int_handler),
    }
    for name, (handler, usual) in handlers.items():
        number = getattr(signal, name, None)
        if number is None or threading.current_thread() is not threading.main_thread():
            continue
        if signal.getsignal(number) is usual:
            signal.signal(number, handler)
            taken[number] = usual
    try:
        yield
    finally:
        for number, usual in taken.items():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, usual)


def main() -> None:
    """Run one command; an error of the input exits with 2, a signal with 128 and its number, without a traceback."""
    # The framework's chatter would drown our lines; a real failure raises. Its first lines come before it reads this.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or pipe of any encoding
            stream.reconfigure(errors="backslashreplace")
    with stopped_by_signals():
        _run()


OUT_OF_MEMORY = (
    "there is too little memory for this. Take smaller batches (--batch-size, --inference-batch-size), fewer patterns "
    "(--frames, --n-subsample) or crop them (--crop). What a run has kept is whole: it goes on with --resume."
)


MOST_OWNERS = 3
"""Commands with an option that are named where it is given to another one."""


def _explained(error: click.NoSuchOption) -> click.NoSuchOption:
    """With what resembles the word, whose dashes do not count, or else the commands that have the option."""
    word, message = error.option_name.lstrip("-"), error.message
    near = difflib.get_close_matches(word, [option.lstrip("-") for option in error.possibilities or ()])
    flags = {name: [opt for each in command.params for opt in each.opts] for name, command in cli.commands.items()}
    owners = [name for name, opts in flags.items() if error.option_name in opts]
    if 0 < len(owners) <= MOST_OWNERS:
        near, message = [], f"{message} It is an option of ptycho {', ptycho '.join(owners)}."
    return click.NoSuchOption(error.option_name, message, [f"--{each}" for each in near], error.ctx)


def _run() -> None:
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            error = _explained(error)
        error.show()
        sys.exit(error.exit_code)
    except PtychoError as error:
        click.echo(f"Error: {error.line(flag_of)}", err=True)
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, click.Abort) as stop:
        cause = stop.__cause__ if isinstance(stop, click.Abort) else stop  # click puts its own in its place
        signum = cause.signum if isinstance(cause, Terminated) else signal.SIGINT
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # frameworks take a while to end
        with contextlib.suppress(OSError):  # the terminal may be gone
            click.echo("Interrupted." if signum == signal.SIGINT else f"Ended by {signum.name}.", err=True)
        sys.exit(EXIT_SIGNAL + signum)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        click.echo(f"Error: {OUT_OF_MEMORY}", err=True)
        sys.exit(EXIT_INPUT)
