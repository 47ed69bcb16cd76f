"""What every command shares: errors as messages, common options, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from stages.progress import progress_of_total
from store.errors import StoreError
from store.files import reading

if TYPE_CHECKING:
    import torch

    from pipeline.config.params import Params, StudentConfig
    from pipeline.extraction.extract import Extract
    from pipeline.extraction.job import Extraction
    from pipeline.extraction.load import JobFiles
    from pipeline.training.run import TrainingRun
    from store.manifest import Manifest
    from store.schema import StoreSpec

Command = Callable[..., None]
DEBUG = "CIRKD_DEBUG"
EXIT_INTERRUPTED = 3
SAME_WITHIN_S = 1.0
"""torchrun, Slurm and the terminal may each send a signal for one interruption."""
SLOW_FROM = 1.2
"""Half precision counts as slower from here: below, it may be the measurement's noise."""

PATH = click.Path(path_type=Path)


def completing(list_names: Callable[[click.Context], Iterable[str]]) -> Callable[..., Any]:
    """Return what completes an argument in a shell: by names, or by files where none fits.

    A shell that asks gets no error: what cannot be read has no names.
    """

    def complete(
        context: click.Context, argument: click.Parameter, begun: str
    ) -> list[CompletionItem]:
        with suppress(Exception):
            names = [name for name in list_names(context) if name.startswith(begun)]
            if names:
                return [CompletionItem(name) for name in names]
        return [CompletionItem(begun, type="file")]

    return complete


def _list_students(context: click.Context) -> Iterable[str]:
    from pipeline.config.params import load_params

    return load_params(context.params.get("params_path") or "params.yaml").students


def _list_manifests(context: click.Context) -> Iterable[str]:
    found = sorted(Path("artifacts/manifests").glob("*.json"))
    # What lies beside a manifest has a second dot in its name.
    return [str(path) for path in found if "." not in path.stem]


complete_student = completing(_list_students)
complete_manifest = completing(_list_manifests)

index_argument = click.argument("index_path", metavar="INDEX", type=PATH)
teacher_argument = click.argument("teacher_path", metavar="TEACHER", type=PATH)
manifest_argument = click.argument(
    "manifest_path", metavar="MANIFEST", type=PATH, shell_complete=complete_manifest
)
destination_argument = click.argument("destination", type=PATH)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
params_option = click.option(
    "--params",
    "params_path",
    type=PATH,
    default=Path("params.yaml"),
    show_default=True,
    help="Parameters of the whole pipeline.",
)
device_option = click.option(
    "--device",
    "device_name",
    default="auto",
    envvar="CIRKD_DEVICE",
    show_envvar=True,
    show_default=True,
    help="cpu, cuda, cuda:N; auto takes a GPU where there is one.",
)
workers_option = click.option(
    "--workers",
    "num_workers",
    type=click.IntRange(min=0),
    default=1,
    envvar="CIRKD_WORKERS",
    show_envvar=True,
    show_default=True,
    help="Processes that read ahead; never changes a result.",
)
ahead_option = click.option(
    "--ahead-mb",
    "ahead_bytes",
    type=click.IntRange(min=1),
    default=2000,
    envvar="CIRKD_AHEAD_MB",
    show_envvar=True,
    show_default=True,
    help="Host memory that batches may take on their way, in MB; never changes a result.",
    callback=lambda context, option, megabytes: megabytes * 10**6,
)


min_miou_option = click.option(
    "--min-miou",
    type=click.FloatRange(0, 1),
    default=0.3,
    envvar="CIRKD_MIN_MIOU",
    show_envvar=True,
    show_default=True,
    help="A teacher whose mIoU on val is lower gets a warning; never changes a result.",
)


def _need_tensorboard(
    context: click.Context, option: click.Parameter, folder: Path | None
) -> Path | None:
    if folder is not None and find_spec("tensorboard") is None:
        raise click.UsageError(
            "--tensorboard needs a package that is not here: pip install '.[tensorboard]'"
        )
    return folder


tensorboard_option = click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CIRKD_TENSORBOARD",
    show_envvar=True,
    callback=_need_tensorboard,
    help="Folder that gets every logged scalar for TensorBoard, too; never changes a result.",
)


def stores_option(help: str | None = None) -> Callable[[Command], Command]:
    """Add the folder that stores are made in."""
    return click.option(
        "--stores", type=PATH, default=Path("artifacts/stores"), show_default=True, help=help
    )


def spots_option(help: str, default: int | None = None) -> Callable[[Command], Command]:
    """Add how many records the teacher is run on again."""
    return click.option(
        "--spot",
        "num_spots",
        type=click.IntRange(min=1),
        default=default,
        show_default=default is not None,
        help=help,
    )


def job_files(function: Command) -> Command:
    """Give a command INDEX, TEACHER, --params and --device as one argument `files: JobFiles`."""

    @wraps(function)
    def command(
        *,
        index_path: Path,
        teacher_path: Path,
        params_path: Path,
        device_name: str,
        **others: object,
    ) -> None:
        from pipeline.extraction.load import JobFiles

        # Whole paths, because a worker may have another working directory.
        index, teacher, params = (x.resolve() for x in (index_path, teacher_path, params_path))
        function(files=JobFiles(index, teacher, params, device_name), **others)

    for option in (device_option, params_option, teacher_argument, index_argument):
        command = option(command)
    return command


class StageCommand(click.Command):
    """A command whose errors end as a message and exit code 1, not as a traceback.

    Attributes:
        example: a whole command line, shown at the end of its help.
    """

    def __init__(self, *arguments: Any, example: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example in one line, whatever its length: it is to be copied."""
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{self.example}\n")

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; `cirkd --debug`, or CIRKD_DEBUG, keeps the traceback."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):  # the second at a prompt
            Interruption.exit("no file is half written")
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            raise click.ClickException(describe(error)) from error


def describe(error: Exception) -> str:
    """Put an error into words: what a user can mend as it says, anything else with its kind."""
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    elif isinstance(error, (ValueError, IndexError, OSError, StoreError)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}; {DEBUG}=1 shows where it was raised"
    return "\n".join((text, *getattr(error, "__notes__", ())))


class Interruption:
    """Turns SIGTERM and SIGINT into a flag, so that the work in hand is finished and kept.

    Another one, SAME_WITHIN_S after the first or later, ends the process at once.
    """

    def __init__(self) -> None:
        self._requested_at: float | None = None

    def __enter__(self) -> Interruption:
        self._before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested_at is None:
            self._requested_at = now
        elif now - self._requested_at >= SAME_WITHIN_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    @property
    def requested(self) -> bool:
        """Tell whether somebody has asked to stop."""
        return self._requested_at is not None

    def keep_going(self) -> bool:
        """Tell whether nobody has asked to stop."""
        return not self.requested

    @staticmethod
    def exit(what_is_kept: str) -> NoReturn:
        """End with exit code 3, which DVC takes for "not done"."""
        click.echo(f"interrupted: {what_is_kept}; run the same command to go on", err=True)
        raise SystemExit(EXIT_INTERRUPTED)


def follow_training(run: TrainingRun) -> float:
    """Train to the end with a progress line and return the seconds it took; 3 if interrupted."""
    from pipeline.training.run import run_training

    with Interruption() as stop, progress_of_total(run.title, "steps") as show:
        seconds = run_training(run, show, stop.keep_going)
        if seconds is None:
            stop.exit(f"{run.title} is kept at its last checkpoint")
    return seconds


def load_job(files: JobFiles, stored: StoreSpec | None = None) -> Extraction:
    """Load an extraction, with a progress line if the teacher must first look for a subspace."""
    with progress_of_total("find the subspace", "views") as show:
        return files.load(show, stored)


def follow_extraction(
    job: Extraction, path: Path, revoked: Sequence[int] = (), extract_with: Extract | None = None
) -> Manifest:
    """Fill a store with a progress line, as `fill` does; exit code 3 if interrupted."""
    from pipeline.extraction.extract import extract, fill

    with Interruption() as stop, progress_of_total("extract", "views") as show:
        manifest = fill(job, path, revoked, extract_with or extract, show, stop.keep_going)
        if manifest is None:
            stop.exit("every finished unit is in the store")
    return manifest


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], faint: Container[int] = ()
) -> None:
    """Print a table, the rows of the given numbers faint; colours are for terminals alone."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for number, row in enumerate(rows):
        shown.add_row(*map(escape, row), style="dim" if number in faint else None)
    # A file or a pipe has no width: nothing is to be cut there.
    Console(width=None if sys.stdout.isatty() else 220).print(shown)


def pick_student(params: Params, name: str) -> StudentConfig:
    """Return the settings of a student by its name."""
    if name not in params.students:
        known = ", ".join(params.students)
        raise ValueError(f"params.yaml has no student {name}; expected one of {known}")
    return params.students[name]


def measure_precision(precision: str, device: torch.device, setting: str) -> float | None:
    """Say on stderr if half precision is slower than float32 here, before time is spent in it.

    Args:
        precision: what `setting` says; nothing is measured for float32.
        device: to measure on.
        setting: its name in params.yaml.

    Returns:
        How many times as long half precision takes, for the log; None for float32.
    """
    if precision == "float32":
        return None
    from pipeline.runtime.precision import half_precision_cost

    cost = round(half_precision_cost(device, precision), 2)
    if cost > SLOW_FROM:
        click.echo(
            f"{setting}: {precision} takes {cost:.1f} times as long as float32 on this "
            f"{device.type}, which lacks the instructions for it; set {setting}: float32",
            err=True,
        )
    return cost


def warn_of_teacher(teacher: Path, min_miou: float) -> None:
    """Say on stderr what the card beside a teacher's file says against distilling from it."""
    import numpy as np

    from pipeline.evaluation.evaluate import find_doubts
    from pipeline.models.teacher import REMAKE, TeacherCard

    path = teacher.with_suffix(".json")
    card = TeacherCard.read(path)
    if "confusion" not in card.val:
        return
    with reading(path, "the card of a teacher", REMAKE):
        doubts = find_doubts(np.array(card.val["confusion"]), card.class_names, min_miou)
    for doubt in doubts:
        click.echo(f"warning: teacher {teacher}: {doubt}", err=True)


def prepare_dvc() -> tuple[list[str], dict[str, str]]:
    """Check params.yaml, and return the command and environment that run dvc here, without git too.

    `dvc repro` checks it in its first stage, which options such as `--single-item` leave out.
    """
    from pipeline.config.params import load_params

    if not Path("dvc.yaml").exists():
        raise FileNotFoundError(f"{Path.cwd()}: no dvc.yaml here; run in the project's root")
    load_params()
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    # Else DVC gives up after three seconds, be it after hours of training.
    dvc = [sys.executable, "-m", "dvc", "--wait-for-lock"]
    if not _in_git():
        # An unpacked archive: DVC refuses to work without git unless told so.
        subprocess.run(
            [*dvc, "config", "--local", "core.no_scm", "true"], env=environment, check=True
        )
    return dvc, environment


def _in_git() -> bool:
    return any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents))
