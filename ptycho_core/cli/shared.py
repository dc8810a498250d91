"""What the commands share: their output, their scans, and help under the headings of the configuration's tables."""

from __future__ import annotations

import contextlib
import functools
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
from click.core import ParameterSource

from ptycho_core.cli.options import FILE, Command, SettingOption
from ptycho_core.errors import ConfigurationError, PtychoError
from ptycho_core.runs.console import Output
from ptycho_core.runs.stream import EventStream
from ptycho_core.settings.fields import flag_of
from ptycho_core.settings.lists import listed
from ptycho_core.settings.reading import ReadOptions
from ptycho_core.settings.sources import Layers, warn_of_unknown_variables

if TYPE_CHECKING:
    from ptycho_core.engine.launched import Place
    from ptycho_core.engine.processes import Processes
    from ptycho_core.engine.protocol import Engine
    from ptycho_core.scans.scan import Scan
    from ptycho_core.settings.execution import ExecutionConfig

IMAGE_FORMATS = ("tiff", "cxi", "ptychodus", "hdf5")
"""Names of `ptycho_core.reconstruction.writing`, which needs numpy."""
EVENTS, SERVE, PREVIEW = "--events", "--serve", "--preview"
HEADINGS = {
    "model": "Model",
    "training": "Training",
    "inference": "Reconstruction",
    "solving": "Solving",
    "prior": "Learning",
    "execution": "Execution",
    "reading": "Scan input",
}


FOLLOWER = "ptycho_core.follower"
"""In a context: which process this is, in words, where it is one of several and not the first."""


class PlacingCommand(click.Command):
    """A command whose errors name the flag, variable or file that set the setting at fault.

    With `--events`, where it has that, its course and its end are lines on stdout.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        asked = EVENTS in args and any(EVENTS in option.opts for option in self.params)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except (PtychoError, click.UsageError) as error:
            if asked:
                EventStream(str(info_name), sys.stdout).fail(error, flag_of)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        stream: EventStream | None = ctx.meta.get(EVENTS)
        with contextlib.nullcontext() if stream is None else stream.telling(flag_of):
            try:
                return super().invoke(ctx)
            except PtychoError as error:
                place = None if error.places else self._place_of(ctx, error)
                placed = error if place is None else error.placed(place)
                if (follower := ctx.meta.get(FOLLOWER)) is not None:
                    placed = placed.placed(follower)
                if placed is error:
                    raise
                raise placed from error
            except KeyboardInterrupt as stop:
                if FOLLOWER in ctx.meta:  # the first process says it for all
                    raise SystemExit(128 + getattr(stop, "signum", signal.SIGINT)) from stop
                raise

    def _place_of(self, context: click.Context, error: PtychoError) -> str | None:
        if isinstance(context.obj, Layers) and (place := context.obj.place_of(error)) is not None:
            return place
        for option in self.params:  # those of no configuration
            named = option.name is not None and option.name.rstrip("_") == error.setting
            if named and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE:
                return f"flag {option.opts[0]}"
        return None


def _stream(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        context.meta[EVENTS] = EventStream(str(context.info_name), sys.stdout)


def events_option(command: Command) -> Command:
    """`--events`, for every command with a course that another program may follow."""
    help = "Print one JSON object a line on stdout for all that happens; a line 'stop' on stdin ends the run."
    return click.option(EVENTS, is_flag=True, expose_value=False, callback=_stream, help=help)(command)


def _served(context: click.Context, parameter: click.Parameter, address: str | None) -> None:
    if address is not None and not context.resilient_parsing:
        context.meta[SERVE] = address


def serve_option(command: Command) -> Command:
    """`--serve`, for every command whose course a browser may show."""
    help = "Show the course on a page: on this machine, --serve, --serve=PORT; to others, --serve=0.0.0.0:PORT."
    settings: dict[str, Any] = {"is_flag": False, "flag_value": "5006", "metavar": "[PORT]", "expose_value": False}
    return click.option(SERVE, **settings, callback=_served, help=help)(command)


def _previewed(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        context.meta[PREVIEW] = True


def preview_option(command: Command) -> Command:
    """`--preview`, for every command that has an object while it lasts."""
    help = "Show the object so far in the terminal now and then, as a small picture."
    return click.option(PREVIEW, is_flag=True, expose_value=False, callback=_previewed, help=help)(command)


ALL = "ptycho_core.help_all"
"""Set in a context whose help is to show every setting."""


def _show_all(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        context.meta[ALL] = True
        click.echo(context.get_help())
        context.exit()


class SectionedCommand(PlacingCommand):
    """A command whose help shows its own options first, then the settings of each table under a heading.

    `--help` shows the common ones, `--help-all` all of them.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        number = sum(isinstance(parameter, SettingOption) and not parameter.hidden for parameter in self.params)
        words = f"Show all {number} settings and exit."
        everything = click.Option(
            ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help=words
        )
        return [*super().get_params(ctx), everything]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            setting = parameter if isinstance(parameter, SettingOption) else None
            shown = setting is None or setting.common or ctx.meta.get(ALL, False)
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) and shown else None
            if record is not None:
                rows.setdefault("Options" if setting is None else HEADINGS[setting.section], []).append(record)
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def output_options(command: Command) -> Command:
    """`--quiet` and `--json`, for every command that computes."""
    command = click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="Print only errors, and JSON where --json is given.")(command)


def overwrite_option(command: Command) -> Command:
    """`--overwrite`, for every command that writes what another may have written."""
    help = "Replace the results of an earlier run."
    return click.option("--overwrite", is_flag=True, help=help)(command)


def write_option(command: Command) -> Command:
    """`--write`, for every command that reconstructs."""
    help = f"Also write the object for other programs: {', '.join(IMAGE_FORMATS)}, separated by commas."
    return click.option("--write", metavar="FORMATS", default=None, help=help)(command)


def image_formats(write: str | None) -> tuple[str, ...]:
    """The formats that `--write` names; ConfigurationError for an unknown one, before any work."""
    names = tuple(name.strip().lower() for name in write.split(",")) if write is not None else ()
    for name in names:
        if name not in IMAGE_FORMATS:
            remedy = f"Choose from {', '.join(IMAGE_FORMATS)}, separated by commas."
            raise ConfigurationError("--write", expected="known formats", received=repr(name), remedy=remedy)
    return names


def config_option(*sections: str) -> Callable[[Command], Command]:
    tables = ", ".join(f"[{section}]" for section in sections)
    return click.option("--config", type=FILE, default=None, help=f"TOML or YAML file with the tables {tables}.")


def console(quiet: bool, as_json: bool, execution: ExecutionConfig | None = None, place: Place | None = None) -> Output:
    """Where the output of this command goes, with the log of the core; of several processes the first one's alone.

    A command that starts its processes has neither events nor a page of its own.
    """
    context = click.get_current_context()
    starts = execution is not None and place is None and execution.devices > 1
    if starts:
        context.meta.pop(SERVE, None)
        context.meta.pop(PREVIEW, None)
    if place is not None and place.rank > 0:
        context.meta[FOLLOWER] = place.words
        if (unheard := context.meta.pop(EVENTS, None)) is not None:
            unheard.silence()
        context.meta.pop(SERVE, None)
        context.meta.pop(PREVIEW, None)
        quiet, as_json = True, False
    stream = context.meta.get(EVENTS)
    if stream is not None and as_json:
        raise click.UsageError(f"--json and {EVENTS} both print on stdout; the last event has the summary.")
    if PREVIEW in context.meta and (quiet or stream is not None):
        raise click.UsageError(f"{PREVIEW} shows nothing with {'--quiet' if quiet else EVENTS}: leave one of them out.")
    if stream is not None and not starts:
        stream.begin()
    output = Output(quiet, as_json, execution is None or execution.enable_progress_bar, stream)
    output.take_log()
    if SERVE in context.meta:
        _serve(output, context)
    if PREVIEW in context.meta:
        _preview(output)
    warn_of_unknown_variables()
    return output


def _serve(output: Output, context: click.Context) -> None:
    """A page of the command, until it ends."""
    from ptycho_core.report.pages.live import address_of
    from ptycho_core.report.pages.served import LivePage

    page = LivePage(*address_of(context.meta[SERVE]))
    context.call_on_close(page.close)
    output.watchers.append(page)
    output.say(f"page: {page.url}")


def _preview(output: Output) -> None:
    from ptycho_core.report.preview import Preview, greys_of

    if greys := greys_of(sys.stderr):
        output.watchers.append(Preview(greys))
    else:
        output.say(f"{PREVIEW} is left out: stderr is no terminal that has colours by its TERM or COLORTERM.")


def told_origin(output: Output, layers: Layers) -> None:
    """For the record of the run: the command, and where its settings are from."""
    from ptycho_core.report.record import Origin  # with numpy

    output.origin = Origin(command=shlex.join(["ptycho", *sys.argv[1:]]), sources=layers.sources)


class Wish:
    """A signal, which several processes follow together at their next step: one alone would leave the others waiting.

    A second one ends this process at once.
    """

    def __init__(self) -> None:
        self._stop: KeyboardInterrupt | None = None

    def __call__(self) -> bool:
        return self._stop is not None

    def take_signals(self) -> None:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # a platform may lack one
            if number is not None and callable(handler := signal.getsignal(number)):
                signal.signal(number, functools.partial(self._taken, handler))

    def _taken(self, handler: Callable[[int, Any], Any], number: int, frame: Any) -> None:
        if self._stop is not None:
            handler(number, frame)
        try:
            handler(number, frame)
        except KeyboardInterrupt as stop:
            self._stop = stop

    def reason(self, stop: BaseException) -> BaseException:
        """What has ended a run: the signal, where it was one."""
        return self._stop if self._stop is not None and isinstance(stop, KeyboardInterrupt) else stop


@attrs.frozen(eq=False)
class Shared:
    """The processes that share the work of a command, and the wish to end it."""

    processes: Processes | None = None
    wish: Wish = attrs.Factory(Wish)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of a run."""
        return {} if self.processes is None else {"processes": self.processes, "should_stop": self.wish}

    def reading(self) -> AbstractContextManager[None]:
        """A block in which scans are loaded: what has to look at all patterns looks at this process's share of them."""
        if self.processes is None:
            return contextlib.nullcontext()
        from ptycho_core.scans.frames import Together, passes_shared  # with numpy

        processes = self.processes
        return passes_shared(Together(own=processes.part.of, total=processes.sum, told=processes.told_by_all))


def sharing(load_engine: Callable[[], Engine], execution: ExecutionConfig, place: Place | None) -> Shared:
    """The processes of this command: joined, or started and waited for, where it is not to work alone."""
    if place is None and execution.devices == 1:
        return Shared()
    from ptycho_core.engine.launched import joined

    shared = Shared(joined(load_engine(), execution, place))
    shared.wish.take_signals()
    return shared


def again(execution: ExecutionConfig) -> tuple[str, ...]:
    """The flags that start as many processes again: a run goes on with any number."""
    return ("--devices", str(execution.devices)) if execution.devices > 1 else ()


def with_scan(flags: dict[str, Any], field: str, scan: Path | None) -> None:
    """The argument SCAN is another way to set `field`."""
    if scan is None:
        return
    context = click.get_current_context()
    if context.get_parameter_source(field) is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"SCAN and --{field.replace('_', '-')} both name the scan; give one.")
    flags[field] = scan
    context.set_parameter_source(field, ParameterSource.COMMANDLINE)


def load(config: Any, field: str, reading: ReadOptions, what: str) -> Scan:
    """The scan that a configuration names, judged, or an error that says how to name one."""
    path = getattr(config, field)
    return load_all([] if path is None else [path], config, field, reading, what)[0]


def load_all(files: Sequence[Path], config: Any, field: str, reading: ReadOptions, what: str) -> list[Scan]:
    """Those in the files, which a field names, judged, or an error that says how to name one."""
    from ptycho_core.io import load_scan
    from ptycho_core.quality.judging import checked

    if not files:
        owner, remedy = type(config).__name__, "Give it as the argument SCAN or in the configuration."
        raise ConfigurationError(owner, field, expected=what, received="none", remedy=remedy)
    return [checked(load_scan(path, reading)) for path in files]


def files_of(config: Any, field: str) -> tuple[Path, ...]:
    """The scan files that a field names: none, one, or those of a list."""
    path = getattr(config, field)
    return () if path is None else listed(path)


def is_truth(file: Path | None, reading: ReadOptions) -> bool:
    """Whether a scan's file can be given to `ptycho evaluate` as it is, where the scan has the true object."""
    return reading == ReadOptions() or (file is not None and file.suffix == ".npz" and reading.object is None)


def files_in_words(text: str, summary: Mapping[str, Any]) -> str:
    """What a command has come to, and where the pictures of it are."""
    told = {"figure": "the picture", "report": "everything on one page, for a browser"}
    return "\n".join([text, *(f"{summary[key]}: {what}" for key, what in told.items() if summary.get(key) is not None)])
