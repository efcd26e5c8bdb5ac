"""Pruning, Proven: one command for the whole course. It needs Python 3.11 or newer and nothing else.

    python course.py run        execute every notebook (small, offline) and show which claims hold
    python course.py sweep      execute notebooks for many values of their parameters, and show the means over seeds
    python course.py lab        open the notebooks in JupyterLab
    python course.py test       check the course itself
    python course.py check      is this computer ready?
    python course.py data       which data sets are here; get, import and verify them
    python course.py bench      measure the speed that the course promises
    python course.py evaluate   how good is a network, of a file or by its name, on a folder of images?
    python course.py finetune   train such a network on a folder of images, with a teacher, on one or many GPUs
    python course.py prune      make such a network smaller: channels, attention heads and their dimensions
    python course.py import     bring in a network that others pruned and pickled; nothing in the pickle is run
    python course.py tidy       put notebooks back into their normal form (--check: only say which are not)

Every command has --help. The first one makes the environment .venv, which takes a few minutes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
NOTEBOOKS = Path(os.environ.get("COURSE_NOTEBOOKS") or ROOT / "notebooks").resolve()
VENV = Path(os.environ.get("COURSE_VENV") or ROOT / ".venv").absolute()
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "course-stamp.txt"
PROFILES = ("smoke", "laptop", "full")
ENGINES = ("processes", "dask")
SCOPES = ("isomorphic", "global", "local")
CRITERIA = ("taylor", "l1", "l2", "bn", "chance")
SLURM = ("queue", "account", "cores", "memory", "walltime", "interface")
MOST = 1000  # runs in a sweep
TWO = min(2, os.cpu_count() or 1)
SIZE = "about 6 GB" if sys.platform == "linux" else "about 1.5 GB"


def fail(sentence, code=2):
    """Say one sentence and stop."""
    print(f"course.py: {sentence}", file=sys.stderr)
    raise SystemExit(code)


def unknown(what, value, known, where="", more=""):
    """Stop at a word that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(value, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    fail(f"there is no {what} {value!r}{where}{hint}: choose from {', '.join(known)}{more}.")


# --- the environment ------------------------------------------------------------------------------------------------


def digest():
    """What the environment is made from, in 64 letters: the lock, pyproject.toml and where this folder lies."""
    parts = (LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), str(ROOT).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def version_inside():
    """The version of the environment's own Python, or None when it is gone or does not start."""
    command = [str(PYTHON), "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def stamp():
    """The words that a finished environment carries, or None when its Python does not start."""
    version = version_inside()
    return version and f"{digest()} Python {version}\n"


def ready():
    """Is the environment finished and made from today's lock? The stamp is written last, so half of one is not."""
    return STAMP.is_file() and STAMP.read_text() == stamp()


@contextlib.contextmanager
def alone(file):
    """Wait until no other course.py is in this block; a lock is freed when its process ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as handle:
        if not grab(handle):
            print(f"Another course.py is making {VENV}: waiting for it …", flush=True)
            while not grab(handle):
                time.sleep(0.5)
        yield


def grab(handle):
    """Try to lock an open file: True when it is ours."""
    try:
        if os.name == "nt":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def ensure():
    """Make or mend the environment if need be."""
    if ready():
        return
    try:
        with alone(ROOT / ".course" / "venv.lock"):
            if not ready():
                make()
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"cannot make {VENV}: {error}.", 1)


def make():
    """A finished environment is brought up to date, anything else is made anew; a stamp says that it is whole."""
    count = len(re.findall(r"^\S+==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    kept = STAMP.is_file() and STAMP.read_text().split()[1:] == (stamp() or "").split()[1:]
    verb = "Bringing up to date" if kept else "Making"
    print(f"{verb} {VENV} from {LOCK.name}: {count} packages, {SIZE}, a few minutes …", flush=True)
    STAMP.unlink(missing_ok=True)
    if not kept:
        clear()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(VENV)], check=True)
    install()
    quiet_lab()
    STAMP.write_text(stamp())


def clear():
    """Remove an unfinished environment, and never a folder that is something else."""
    if not VENV.exists():
        return
    if VENV.is_file() or (any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").is_file()):
        fail(f"{VENV} is in the way: it is no Python environment; move it, or set COURSE_VENV to another place.")
    shutil.rmtree(VENV)


def install():
    """Install the locked packages and, beside them, this project: with uv where there is one, else with pip."""
    steps = (["--require-hashes", "-r", str(LOCK)], ["--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    uv = shutil.which("uv")
    if uv and all(subprocess.run([uv, "pip", "install", "--python", str(PYTHON), *s]).returncode == 0 for s in steps):
        return
    if subprocess.run([str(PYTHON), "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL).returncode:
        fail("this Python cannot install pip; on Debian or Ubuntu, sudo apt install python3-venv helps.", 1)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install"]
    for step in steps:
        if subprocess.run([*pip, *step]).returncode:
            fail("the packages could not be installed, see above; mend that and give the same command again.", 1)


def quiet_lab():
    """JupyterLab looks for no news on the network and asks no question about it."""
    folder = VENV / "share" / "jupyter" / "lab" / "settings"
    folder.mkdir(parents=True, exist_ok=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (folder / "overrides.json").write_text(json.dumps(quiet))


# --- running things inside it ---------------------------------------------------------------------------------------


def surroundings(**extra):
    """The environment variables of everything that runs in .venv: one thread, no network where none is needed."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "MPLBACKEND")}
    env.update({f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")})
    env.update(PYTHONUNBUFFERED="1", PYTHONUTF8="1", JUPYTER_PLATFORM_DIRS="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    env.update(JUPYTER_PATH=str(VENV / "share" / "jupyter"), VIRTUAL_ENV=str(VENV), COURSE_PARENT=str(os.getpid()))
    env.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))  # on Linux: keep freed memory, do not fetch it anew each time
    env["PATH"] = str(PYTHON.parent) + os.pathsep + env.get("PATH", "")
    if env.get("COURSE_CACHE"):
        env["COURSE_CACHE"] = str(Path(env["COURSE_CACHE"]).expanduser().absolute())
    return {name: value for name, value in {**env, **extra}.items() if value is not None}


QUIETLY = """\
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except KeyboardInterrupt:  # while it was still importing
    sys.exit(130)
"""


def inside(*words, **extra):
    """Run the environment's Python on these words, and hand back its exit code."""
    ensure()
    if words[0] == "-m" and words[1].startswith("course_utils."):
        words = ("-c", QUIETLY, *words[1:])
    with subprocess.Popen([str(PYTHON), *map(str, words)], cwd=ROOT, env=surroundings(**extra)) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            for end in (lambda: None, child.terminate, child.kill):
                end()
                with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
                    child.wait(timeout=3)
            raise


# --- the commands ---------------------------------------------------------------------------------------------------


def run(argv):
    """Execute notebooks and show which of their claims hold."""
    parser = options(run)
    parser.add_argument("--profile", default="smoke", metavar="NAME", help=f"{', '.join(PROFILES)} (default smoke)")
    parser.add_argument("--only", action="append", default=[], metavar="NOTEBOOK", help="02, or 00,02, or a name")
    parser.add_argument("--jobs", type=whole, metavar="N", help="notebooks at a time (default 2 in smoke, else 1)")
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    parser.add_argument("--minutes", type=minutes, metavar="N", help="stop after N minutes, between two trials")
    parser.add_argument("--fresh", action="store_true", help="train all networks anew, ignore those kept")
    args = parse(parser, argv)
    if args.profile not in PROFILES:
        unknown("profile", args.profile, PROFILES)
    smoke, books = args.profile == "smoke", chosen(args.only)
    words = [word for parameter in args.parameters for word in ("-p", known(parameter, books))]
    words += ["--prepare", "--profile", args.profile, "--jobs", args.jobs or (TWO if smoke else 1)]
    extra = {"COURSE_QUIET": "1"} | ({"HF_HUB_OFFLINE": "1"} if smoke else {})
    extra |= {"COURSE_FRESH": str(time.time())} if args.fresh else {}
    extra |= {"COURSE_MINUTES": str(args.minutes)} if args.minutes else {}
    return inside("-m", "course_utils.batch", *words, *books, **extra)


def sweep(argv):
    """Execute notebooks for every combination of parameters, such as: 02 -p seed=0..4. What is finished is kept."""
    parser = options(sweep)
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="02, or 02,03, or a name")
    parser.add_argument("--profile", default="smoke", metavar="NAME", help=f"{', '.join(PROFILES)} (default smoke)")
    more = "a parameter and its values: seed=0..4, or lr=0.1,0.2, or one"
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUES", help=more)
    parser.add_argument("--jobs", type=whole, metavar="N", help="runs at a time (default 2 in smoke, else 1)")
    parser.add_argument("--minutes", type=minutes, metavar="N", help="begin no run after N minutes")
    parser.add_argument("--engine", metavar="NAME", help="processes on this computer (the default), or dask")
    parser.add_argument("--address", type=address, metavar="tcp://HOST:PORT", help="a Dask scheduler that runs already")
    more = f"Dask's workers as jobs of Slurm; OPTIONS are like queue=debug,memory=4GB: {', '.join(SLURM)}"
    parser.add_argument("--slurm", type=cluster, nargs="?", const="", metavar="OPTIONS", help=more)
    args = parse(parser, argv)
    if args.profile not in PROFILES:
        unknown("profile", args.profile, PROFILES)
    smoke, books = args.profile == "smoke", chosen(args.notebooks)
    words = [word for parameter in expanded(args.parameters, books) for word in ("-p", parameter)]
    words += [*engine(args), "--prepare", "--profile", args.profile, "--jobs", args.jobs or (TWO if smoke else 1)]
    words += ["--minutes", args.minutes] if args.minutes else []
    extra = {"COURSE_QUIET": "1", "COURSE_MINUTES": None, "COURSE_FRESH": None}
    return inside("-m", "course_utils.sweep", *words, *books, **extra | ({"HF_HUB_OFFLINE": "1"} if smoke else {}))


def test(argv):
    """Run all tests, every notebook among them, with an empty cache. What follows -- goes to pytest."""
    parser = options(test)
    parser.add_argument("--only", action="append", default=[], metavar="NOTEBOOK", help="only this notebook's tests")
    parser.add_argument("--jobs", type=whole, default=TWO, metavar="N", help=f"tests at a time (default {TWO})")
    own, rest = split(argv)
    args = parse(parser, own, "; pytest's own options come after --")
    words = ["-n", args.jobs, "--dist", "worksteal"] if args.jobs > 1 else []
    words += ["-k", " or ".join(path.stem for path in chosen(args.only))] if args.only else []
    with tempfile.TemporaryDirectory(prefix="course-test-", ignore_cleanup_errors=True) as cache:
        extra = {"COURSE_CACHE": cache, "HF_HUB_OFFLINE": "1", "COURSE_MINUTES": None, "COURSE_FRESH": None}
        extra |= {"COURSE_QUIET": "1"}
        return inside("-m", "course_utils.sources", "prepare", **extra) or inside(
            "-m", "pytest", "tests", *words, *rest, **extra
        )


def lab(argv):
    """Open the notebooks in JupyterLab. What follows -- goes to JupyterLab, for example -- --no-browser --port 8899."""
    own, rest = split(argv)
    parse(options(lab), own, "; JupyterLab's own options come after --")
    return inside("-m", "jupyterlab", NOTEBOOKS, *rest)


def check(argv):
    """Is this computer ready: versions, disk, data, threads?"""
    parse(options(check), argv)
    return inside("-m", "course_utils.preflight")


def data(argv):
    """The data sets: list, get NAME, import FILE, verify."""
    return inside("-m", "course_utils.sources", *argv)


def bench(argv):
    """Measure the speed that the course promises, as ratios."""
    parse(options(bench), argv)
    return inside("tests/bench.py")


def evaluate(argv):
    """Show what a network costs and how good it is on a folder of images (DATA/val/CLASS/*.jpg, as ImageNet's)."""
    parser = options(evaluate)
    parser.usage = "python course.py evaluate NETWORK --data DATA [options]"
    about_images(parser)
    parser.add_argument("--split", metavar="NAME", help="the folder in DATA (default val, or validation, or test)")
    parser.add_argument("--batch-size", type=whole, metavar="N", help="images at a time, per process (default 64)")
    more = (
        "a text file with the network's classes in their order, one per line, if the folders have other names or order"
    )
    parser.add_argument("--classes", type=there, metavar="FILE", help=more)
    return launched("course_utils.evaluation", parser, argv)


def finetune(argv):
    """Train a network on a folder of images (DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg, as ImageNet's)."""
    parser = options(finetune)
    parser.usage = "python course.py finetune NETWORK --data DATA --out FOLDER [options]"
    about_images(parser)
    more = "where the networks of the latest and the best epoch go; the same command goes on with what lies there"
    parser.add_argument("--out", type=there, required=True, metavar="FOLDER", help=more)
    for name, (kind, metavar, more) in TUNING.items():
        kwargs = {"nargs": "?", "const": RANDAUGMENT} if name == "randaugment" else {}
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=more, **kwargs)
    parser.add_argument(
        "--plain", action="store_true", help="training images are not altered, flipped or cut at random"
    )
    more = "replace the last layer by a random one for the classes in DATA/train"
    parser.add_argument("--new-head", action="store_true", help=more)
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return launched("course_utils.tuning", parser, argv)


def prune(argv):
    """Make a network smaller: the channels, heads and dimensions that matter least go, and what is left is a file."""
    parser = options(prune)
    parser.usage = "python course.py prune NETWORK --out FILE [options]"
    more = "a file of a network (.safetensors), or a name that timm, torchvision or the course knows"
    parser.add_argument("network", type=file_or_name, metavar="NETWORK", help=more)
    parser.add_argument("--out", type=there, required=True, metavar="FILE", help="where the small network goes")
    for name, (kind, metavar, more) in PRUNING.items():
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=more)
    more = "a group that stays whole, such as embedding or layer1; may be given again"
    parser.add_argument("--keep", action="append", default=[], metavar="GROUP", help=more)
    parser.add_argument("--random", action="store_true", help="random weights for a network that is named, for trials")
    args = vars(parse(parser, argv))
    for name, words in {"scope": SCOPES, "criterion": CRITERIA}.items():
        if args[name] not in (None, *words):
            unknown(name, args[name], words)
    ending(args["out"])
    words = [args.pop("network")] + [word for group in args.pop("keep") for word in ("--keep", group)]
    words += ["--random"] if args.pop("random") else []
    given = {name: value for name, value in args.items() if value is not None}
    return inside("-m", "course_utils.prune", *words, *flags(given))


def ending(out):
    """Refuse a file for a network that is called otherwise."""
    if out.suffix != ".safetensors":
        fail(f"--out {out.name} has another ending: a network's file is called NAME.safetensors.")


def flags(values):
    """Options as words: {"head_dim": 0.25} becomes --head-dim 0.25."""
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


def import_(argv):
    """Bring in a network that others pruned and pickled whole; nothing of the pickle is run, foreign code refused."""
    parser = options(import_)
    parser.add_argument("file", type=there, metavar="FILE", help="what torch.save wrote: a network, or a dict with it")
    more = "the architecture it was pruned from, as timm or torchvision names it: deit_base_distilled_patch16_224"
    parser.add_argument("--like", metavar="NAME", help=more)
    more = "refuse it unless it tells N classes apart (default: as many as the file does)"
    parser.add_argument("--classes", type=whole, metavar="N", help=more)
    more = "where the network goes (default: beside FILE, with .safetensors for its ending)"
    parser.add_argument("--out", type=there, metavar="FILE", help=more)
    args = parse(parser, argv)
    if not args.like:
        fail("import needs --like NAME: the architecture that the network was pruned from.")
    if args.out:
        ending(args.out)
    words = [args.file, "--like", args.like, *(["--classes", args.classes] if args.classes else [])]
    return inside("-m", "course_utils.adopt", *words, *(["--out", args.out] if args.out else []))


def tidy(argv):
    """Put notebooks into their normal form."""
    parser = options(tidy)
    parser.add_argument("--check", action="store_true", help="change nothing, only name the files that differ")
    return inside("-m", "course_utils.tidy", *(["--check"] if parse(parser, argv).check else []), NOTEBOOKS)


EVERY = (run, lab, test, sweep, check, data, bench, tidy, evaluate, finetune, prune, import_)
COMMANDS = {f.__name__.rstrip("_"): f for f in EVERY}


def about_images(parser):
    """The options of every command that shows images to a network."""
    more = "a file of a network (.safetensors), or a name that timm, torchvision or the course knows"
    parser.add_argument("network", type=file_or_name, metavar="NETWORK", help=more)
    parser.add_argument("--data", type=there, required=True, metavar="DATA", help="the folder of images")
    parser.add_argument("--size", type=whole, metavar="N", help="images of N × N pixels (default: the network's)")
    how = "bicubic, bilinear, … (default: the network's)"
    parser.add_argument("--interpolation", metavar="NAME", help=how)
    parser.add_argument("--limit", type=whole, metavar="N", help="only N images of a split, spread over all classes")
    parser.add_argument("--workers", type=count, metavar="N", help="processes that read images, each (default 2)")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: faster on newer GPUs")
    parser.add_argument("--random", action="store_true", help="random weights for a network that is named, for trials")
    parser.add_argument("--processes", type=whole, default=1, metavar="N", help="on this computer: one for each GPU")
    parser.add_argument("--nodes", type=whole, default=1, metavar="N", help="how many computers do this together")
    parser.add_argument("--node-rank", type=count, default=0, metavar="N", help="which of them this is, from 0 on")
    parser.add_argument("--address", type=place, metavar="HOST:PORT", help="where the others find computer 0")


def launched(module, parser, argv):
    """Run a module on these options, in as many processes as they want, here and on other computers."""
    args = vars(parse(parser, argv))
    processes, nodes, number, where = (args.pop(name) for name in ("processes", "nodes", "node_rank", "address"))
    words = [args.pop("network")]
    for name, value in args.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
    if nodes > 1 and not where:
        fail("--nodes needs --address HOST:PORT, the same on all computers: where the others find computer 0.")
    if number >= nodes:
        fail(f"--node-rank {number} is none of {nodes} computers, which are counted from 0.")
    if processes == nodes == 1:
        return inside("-m", module, *words)
    many = ["--processes", processes, "--nodes", nodes, "--node-rank", number, *(["--address", where] if where else [])]
    return inside("-m", "course_utils.launch", *many, module, *words)


# --- words on the command line --------------------------------------------------------------------------------------


def chosen(only):
    """The notebooks to run, in order; `--only` takes numbers or the beginnings of names."""
    every = {path.stem: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    if not every:
        fail(f"there are no notebooks in {NOTEBOOKS}.")
    wanted = [word.strip().removesuffix(".ipynb") for words in only for word in words.split(",")]
    for word in wanted:
        if not word or not any(name.startswith(word) for name in every):
            unknown("notebook", word, list(every))
    return [path for name, path in every.items() if name.startswith(tuple(wanted or [""]))]


def parameters(book):
    """The names in a notebook's cell of parameters."""
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    nodes = [node for source in tagged for node in ast.parse(source).body]
    return [target.id for n in nodes for target in getattr(n, "targets", [getattr(n, "target", None)]) if target]


def expanded(words, books):
    """Parameters as `name=value`, one for each value that words like seed=0..4 stand for."""
    found = [f"{word.partition('=')[0]}={value}" for word in words for value in values(known(word, books, ""))]
    names = [word.partition("=")[0] for word in dict.fromkeys(found)]
    count = len(books) * math.prod(names.count(name) for name in set(names))
    if count > MOST:
        fail(f"a sweep has at most {MOST:,} runs, and these are more: take fewer values at a time.")
    return found


def values(word):
    """The values in a word like seed=0..4 or lr=0.1,0.2; what begins with a bracket or a quote is one value."""
    name, _, text = word.partition("=")
    if text.startswith(("[", "(", "{", "'", '"')):
        return [text]
    if "" in text.replace(" ", "").split(","):
        fail(f"-p {word} lacks a value: write {name}=0, or {name}=0,1,2, or {name}=0..4.")
    return [value for piece in text.split(",") for value in spread(word, piece.strip())]


def spread(word, piece):
    """One value, or the whole numbers from the first to the last."""
    if ".." not in piece:
        return [piece]
    ends = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", piece)
    first, last = map(int, ends.groups()) if ends else (1, 0)
    if first > last:
        fail(f"-p {word}: {piece!r} is no range; write two whole numbers, the smaller first, as in 0..4.")
    return map(str, range(first, min(last, first + MOST) + 1))


def engine(args):
    """Who does the work, as words for the sweep."""
    if args.engine not in (None, *ENGINES):
        unknown("engine", args.engine, ENGINES)
    if args.address and args.slurm is not None:
        fail("--address is for workers that there are, --slurm for new ones: choose one of the two.")
    if args.engine == "processes" and (args.address or args.slurm is not None):
        fail("--address and --slurm are for --engine dask, not for processes.")
    words = ["--address", args.address] if args.address else []
    words += ["--slurm", args.slurm] if args.slurm is not None else []
    return ["--engine", "dask" if words else args.engine or "processes", *words]


def known(word, books, more="; --only chooses notebooks"):
    """A parameter as `name=value`, if every one of these notebooks has it."""
    name, equals, value = word.partition("=")
    if not equals or not name.isidentifier():
        fail(f"-p needs NAME=VALUE, not {word!r}.")
    if name == "profile":
        fail(f"the profile is chosen by --profile {value}, not by -p.")
    for book in books:
        if name not in parameters(book):
            unknown("parameter", name, parameters(book), f" in {book.stem}", more)
    return word


def options(command):
    """A parser that explains itself in one sentence and not by a wall of usage."""
    name = f"python course.py {command.__name__.rstrip('_')}"
    parser = argparse.ArgumentParser(name, description=command.__doc__, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message.replace('argument ', '', 1)}; {name} --help shows how.")
    return parser


def parse(parser, argv, more=""):
    """The options; a word that is none of them is refused by name."""
    names = [name for action in parser._actions for name in action.option_strings]
    strange = [word for word in argv if re.match("--[a-z]", word) and word.split("=")[0] not in names]
    args, rest = (None, strange) if strange else parser.parse_known_args(argv)
    if rest:
        unknown("option", rest[0].split("=")[0], names, more=more)
    return args


def split(argv):
    """The words before `--` and those after it."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


def whole(text):
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def count(text):
    """A whole number of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def number(text):
    """A number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def part(text):
    """A number from 0 to 1."""
    if number(text) > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return float(text)


def fraction(text):
    """A number from 0 to below 1."""
    if number(text) >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1: something must be left")
    return float(text)


def there(text):
    """A path, seen from where the command was given."""
    return Path(text).expanduser().absolute()


def file_or_name(text):
    """A file of a network, if there is one or it is called like one, or else a name."""
    file = there(text)
    return file if file.is_file() or file.suffix in (".safetensors", ".json", ".pth", ".pt") else text


def place(text):
    """Where a computer is found."""
    if not re.fullmatch(r"[^\s/:]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 192.168.0.10:29500")
    return text


def minutes(text):
    """A number above 0."""
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text) or float(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return float(text)


def address(text):
    """Where a scheduler listens."""
    if not re.fullmatch(r"(tcp|tls)://[^\s/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like tcp://127.0.0.1:8786")
    return text


def cluster(text):
    """Options for Slurm, as `name=value,…`."""
    for word in filter(None, text.split(",")):
        name, _, value = word.partition("=")
        if name not in SLURM or not value or (name == "cores" and not value.isdigit()):
            raise argparse.ArgumentTypeError(f"{word!r} is not like queue=debug; there are {', '.join(SLURM)}")
    return text


PRUNING = {  # the options of a pruning: type, what stands for it in the help, and its words there
    "ratio": (fraction, "R", "the part of the channels that goes (default 0.5)"),
    "heads": (fraction, "R", "the part of the heads that goes, over all attentions together (default 0)"),
    "head-dim": (fraction, "R", "the part of the heads' dimensions that goes, alike in all heads (default: --ratio)"),
    "scope": (str, "NAME", "who competes: isomorphic (all that is built alike, the default), global (all), local"),
    "criterion": (str, "NAME", "taylor (the default) looks at images; l1, l2, bn and chance need none"),
    "data": (there, "DATA", "a folder of images, DATA/train/CLASS/*.jpg, as ImageNet's; taylor needs it"),
    "classes": (there, "FILE", "a text file with the network's classes in their order, one per line"),
    "batches": (whole, "N", "batches that taylor looks at (default 50)"),
    "batch-size": (whole, "N", "images in each of them (default 64)"),
    "round-to": (whole, "N", "widths become multiples of N (default 2)"),
    "floor": (whole, "N", "channels that every group keeps at least (default 1)"),
    "size": (whole, "N", "images of N × N pixels (default: the network's)"),
    "workers": (count, "N", "processes that read images (default 2)"),
    "seed": (count, "N", "draws the images, and what chance removes (default 0)"),
}
RANDAUGMENT = "rand-m9-mstd0.5-inc1"
TUNING = {  # the options of a fine-tuning: type, what stands for it in the help, and its words there
    "epochs": (whole, "N", "how often each image is seen (default 10)"),
    "batch-size": (whole, "N", "images in a step, of all processes together (default 128)"),
    "lr": (number, "X", "the highest learning rate (default 1e-4)"),
    "weight-decay": (number, "X", "(default 0.05)"),
    "warmup": (part, "X", "the part of the training in which the learning rate rises (default 0.05)"),
    "optimizer": (str, "NAME", "timm's word for it: adamw (default), sgd, lamb, …"),
    "clip": (number, "X", "cut gradients to this norm (default: never)"),
    "teacher": (file_or_name, "NETWORK", "a network that knows the same classes, and whose answers are learnt too"),
    "distillation": (str, "WAY", "hard: the teacher's first guess (default); soft: all its scores; none"),
    "temperature": (number, "X", "of soft distillation (default 3)"),
    "alpha": (part, "X", "the teacher's part of the loss (default 0.5)"),
    "smoothing": (part, "X", "of the labels (default 0.1)"),
    "mixup": (number, "X", "mix images in pairs, with this alpha (default 0: never; usual is 0.8)"),
    "cutmix": (number, "X", "paste pieces of other images, with this alpha (default 0: never; usual is 1)"),
    "randaugment": (str, "WORDS", f"alter images at random, in timm's words (without WORDS: {RANDAUGMENT})"),
    "erasing": (part, "X", "erase a piece of an image, with this probability (default 0; usual is 0.25)"),
    "ema": (part, "X", "keep a moving average of the weights with this decay, and save that (default 0: none)"),
    "classes": (there, "FILE", "a text file with the network's classes in their order, one per line"),
    "every": (whole, "N", "keep the network of every Nth epoch, too"),
    "seed": (count, "N", "of everything random (default 0)"),
}
EXAMPLES = """\
examples:
  python course.py finetune small.safetensors --data ~/imagenet --out ~/small --teacher deit_small_patch16_224
  python course.py finetune deit_tiny_patch16_224 --new-head --data ~/my-images --out ~/mine --processes 4

  A recipe that was published for pruned DeiTs, 300 epochs with a convolutional teacher, on two computers with four
  GPUs each that see the same folders; the second one is given the same with --node-rank 1:
  python course.py finetune small.safetensors --data ~/imagenet --out ~/small --teacher regnety_160 --epochs 300
      --batch-size 2048 --lr 5e-4 --mixup 0.8 --cutmix 1 --randaugment --erasing 0.25 --bf16
      --processes 4 --nodes 2 --node-rank 0 --address HOST0:29500

FOLDER gets latest.safetensors and best.safetensors (for evaluate), state.safetensors (to go on), and log.jsonl.
torchrun and Slurm can start the processes, too: .venv/bin/torchrun --nproc-per-node 4 -m course_utils.tuning NETWORK …
"""


def main(argv):
    """Choose the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0
    if sys.version_info < (3, 11):  # noqa: UP036
        fail(f"this is Python {platform.python_version()}, the course needs 3.11 or newer: start it with that one.")
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        fail("this is an Intel Mac, and PyTorch is no longer made for it: use another computer or a hosted notebook.")
    if argv[0] not in COMMANDS:
        unknown("option" if argv[0].startswith("-") else "command", argv[0], list(COMMANDS))
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped; what is finished is kept.", file=sys.stderr)
        raise SystemExit(130) from None
