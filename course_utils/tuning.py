"""Fine-tuning of any network on a folder of images, in one process or on many machines; a killed run goes on.

`python course.py finetune FILE --data DIR --out FOLDER` calls this; torchrun can, with -m course_utils.tuning.
"""

import hashlib
import json
import time
from functools import partial
from pathlib import Path

from torch import nn

from course_utils import dist, shrunken
from course_utils.epochs import Run, begin, one_epoch
from course_utils.evaluation import command, cost, evaluate, words
from course_utils.files import crc, new_file, writable
from course_utils.options import Options, checked, identity, read, same
from course_utils.pupils import Pupil, loaders, opened, teacher_of
from course_utils.states import load_state_file, restore, save_state

STATE = "state.safetensors"


def say(sentence: str) -> None:
    """The first process says something."""
    if dist.first():
        print(sentence, flush=True)


def fingerprint(options: Options, pupil: Pupil) -> dict[str, object]:
    """What identifies a run: its options, the weights that it starts from, and the names of its images."""
    root = Path(pupil.train.root)
    images = sorted((str(Path(path).relative_to(root)), label) for path, label in pupil.train.samples)
    weights = [(name, crc(t)) for name, t in pupil.model.state_dict().items()]
    short = [hashlib.sha256(repr(part).encode()).hexdigest()[:16] for part in (weights, images)]
    return identity(options, first_weights=short[0], training_images=short[1])


def parts(run: Run) -> dict[str, nn.Module]:
    """The networks in a run whose tensors change."""
    return {"model": run.model} | ({"average": run.average.module} if run.average else {})


def resumed(run: Run, own: dict, out: Path) -> list[dict]:
    """Bring the run to where it was stopped, if it was; returns its log."""
    if not (out / STATE).exists():
        return []
    tensors, about = load_state_file(out / STATE)
    same(own, about["identity"], out)
    restore(parts(run), run.optimizer, tensors, about["numbers"], out / STATE)
    return about["log"]


def keep(run: Run, pupil: Pupil, log: list[dict], own: dict, out: Path) -> None:
    """Write the networks that are due after this epoch, then the state to go on from, then the log."""
    every, epoch, result = run.options.every, log[-1]["epoch"], {n: v for n, v in log[-1].items() if n != "seconds"}
    due = [
        "latest",
        *(["best"] if log[-1]["best"] else []),
        *([f"epoch-{epoch:03d}"] if every and epoch % every == 0 else []),
    ]
    for name in due:
        shrunken.save(run.result(), out / f"{name}.safetensors", pupil.like, **pupil.known(), result=result)
    save_state(parts(run), run.optimizer, out / STATE, log=log, identity=own)
    with new_file(out / "log.jsonl") as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in log), encoding="utf-8")


def next_epoch(run: Run, pupil: Pupil, val, log: list[dict]) -> dict:
    """Train for one epoch and look at the validation images."""
    began = time.monotonic()
    record = {"epoch": len(log) + 1} | one_epoch(run, len(log), len(pupil.classes))
    dist.equalise(run.result())
    record |= evaluate(run.result(), val, len(val), run.options.bf16)
    record["best"] = record["top1"] > max((one["top1"] for one in log), default=-1)
    return record | {"processes": dist.world(), "seconds": round(time.monotonic() - began, 3)}


def finetune(options: Options) -> int:
    """Train epoch by epoch, evaluate and keep each; a run that was stopped in the same folder goes on."""
    pupil, out = opened(checked(options, dist.world())), Path(options.out).expanduser()
    if dist.first():
        writable(out)
    teacher, (train, val) = teacher_of(options, pupil), loaders(options, pupil)
    own = fingerprint(options, pupil)
    run = begin(pupil.model, options, train, teacher)
    log = resumed(run, own, out)
    dist.agree("weights, images and epochs", (own, log))
    say(f"{options.network}: {cost(pupil.model, pupil.view)}")
    say(
        f"{pupil.counts(options.limit)}; processes: {dist.world()} on {dist.device().type};"
        f" epochs done: {len(log)}/{options.epochs}"
    )
    try:
        while len(log) < options.epochs:
            record = next_epoch(run, pupil, val, log)
            if dist.first():
                keep(run, pupil, [*log, record], own, out)
            log.append(record)
            say(told(record, options.epochs))
            dist.wait()
    except KeyboardInterrupt:
        say(f"\nStopped in epoch {len(log) + 1}: {out} holds {len(log)} of {options.epochs}; the same command goes on.")
        raise
    best = max(log, key=lambda record: record["top1"])
    say(f"{out / 'best.safetensors'}: epoch {best['epoch']}, {words(best)}")
    return 0


def told(record: dict, epochs: int) -> str:
    """'epoch 2/10: training loss 1.0986; top-1 72.13 %, …; 12 s'."""
    star, loss = " (best)" if record["best"] else "", f"training loss {record['training_loss']:.4f}"
    return f"epoch {record['epoch']}/{epochs}: {loss}; {words(record)}{star}; {record['seconds']:.0f} s"


def main(argv: list[str] | None = None) -> int:
    """Fine-tune the network named on the command line."""
    return command(partial(finetune, read(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
