"""Everything that decides a fine-tuning, with defaults: read from words, compared with what a run began with."""

import argparse
from dataclasses import asdict, dataclass, fields

LOOSE = ("network", "data", "out", "teacher", "classes", "workers", "every")  # a run that goes on may change these


@dataclass(frozen=True)
class Options:
    """The options of `python course.py finetune`; `batch_size` counts the images of all processes together."""

    network: str
    data: str
    out: str
    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-4
    weight_decay: float = 0.05
    warmup: float = 0.05  # part of the training
    optimizer: str = "adamw"
    clip: float = 0.0
    smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: str = ""
    erasing: float = 0.0
    plain: bool = False
    ema: float = 0.0
    teacher: str = ""
    distillation: str = ""
    temperature: float = 3.0
    alpha: float = 0.5
    size: int = 0
    interpolation: str = ""
    classes: str = ""
    new_head: bool = False
    limit: int = 0
    every: int = 0
    workers: int = 2
    bf16: bool = False
    seed: int = 0
    random: bool = False  # weights


def read(argv: list[str] | None) -> Options:
    """Options from words; each field of the record is one of them."""
    parser = argparse.ArgumentParser("python -m course_utils.tuning")
    parser.add_argument("network")
    for field in fields(Options)[1:]:
        name = "--" + field.name.replace("_", "-")
        if field.type is bool:
            parser.add_argument(name, action="store_true")
        else:
            required = field.name in ("data", "out")
            parser.add_argument(name, type=field.type, required=required, default=field.default)
    return Options(**vars(parser.parse_args(argv)))


RANGES = {
    "at least 1": lambda o: {"epochs": o.epochs >= 1, "batch-size": o.batch_size >= 1},
    "above 0": lambda o: {"lr": o.lr > 0, "temperature": o.temperature > 0},
    "from 0 to 1": lambda o: {name: 0 <= getattr(o, name) <= 1 for name in ("alpha", "erasing", "warmup")},
    "from 0 to below 1": lambda o: {"smoothing": 0 <= o.smoothing < 1, "ema": 0 <= o.ema < 1},
    "at least 0": lambda o: {n: getattr(o, n) >= 0 for n in ("mixup", "cutmix", "clip", "size", "limit", "every")},
}


def checked(options: Options, processes: int) -> Options:
    """The options, if a training can have them."""
    for words, test in RANGES.items():
        for name, good in test(options).items():
            if not good:
                raise ValueError(f"--{name} is {words}, not {getattr(options, name.replace('-', '_'))}")
    own, rest = divmod(options.batch_size, processes)
    if rest or (own % 2 and (options.mixup or options.cutmix)):
        even = "an even number of images, because they are mixed in pairs" if not rest else "equally many images"
        raise ValueError(f"--batch-size {options.batch_size} does not give each of {processes} processes {even}")
    if options.distillation not in ("", "soft", "hard", "none"):
        raise ValueError(f"--distillation is soft, hard or none, not {options.distillation!r}")
    if options.distillation in ("soft", "hard") and not options.teacher:
        raise ValueError(f"--distillation {options.distillation} needs a --teacher")
    return options


def identity(options: Options, **more: object) -> dict[str, object]:
    """What may not change while a run goes on: most options, and what more identifies it."""
    return {name: value for name, value in asdict(options).items() if name not in LOOSE} | more


def same(here: dict[str, object], there: dict[str, object], place: object) -> None:
    """Refuse to go on with a run that is another one; the first difference is named."""
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            told = f"{name.replace('_', '-')} is {there.get(name)} there and {here.get(name)} here"
            raise ValueError(f"{place} holds another fine-tuning ({told}): give its options again, or another --out")
