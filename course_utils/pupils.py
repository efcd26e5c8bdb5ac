"""A pupil is a network about to be fine-tuned, with the images and classes that it learns, and perhaps a teacher."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from timm.data.loader import PrefetchLoader
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from course_utils import dist, shrunken
from course_utils.classifiers import about, matched, names_in, new_head, outputs_of, set_size
from course_utils.folders import View, example, in_order, labelled, limited, place_of, seen, shuffled, size_of, view_of
from course_utils.options import Options
from course_utils.teachers import answers

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pupil:
    """A network, what it is like, how it sees images, and its images."""

    model: nn.Module
    like: dict
    view: View
    train: ImageFolder
    val: ImageFolder

    @property
    def classes(self) -> list[str]:
        """The names of its outputs."""
        return self.train.classes

    def known(self) -> dict:
        """What its file is to say about it."""
        return {"classes": self.classes, "view": asdict(self.view)}

    def counts(self, limit: int = 0) -> str:
        """'1,000 training and 100 validation images of 10 classes', of each at most the limit."""
        train, val = (min(len(images), limit or len(images)) for images in (self.train, self.val))
        return f"{train:,} training and {val:,} validation images of {len(self.classes)} classes"


def opened(options: Options) -> Pupil:
    """The network and the images that the options name; classes that do not match are refused."""
    places = [place_of(Path(options.data).expanduser(), split) for split in ("train", "val")]
    model, like = shrunken.open_network(options.network, random=options.random)
    known = about(options.network)
    view = view_of(model, known.get("view"), size=options.size, interpolation=options.interpolation)
    set_size(model, view.size)
    names = names_in(options.classes) if options.classes else []
    if options.new_head:
        train = labelled(places[0], names)
        new_head(model, example(view, CPU), len(train.classes), options.seed)
        like = like | {"arguments": like["arguments"] | {classes_key(like): len(train.classes)}}
    else:
        outputs = outputs_of(model, example(view, CPU))
        train = matched(places[0], outputs, names or known.get("classes", ()), ", or ask for a --new-head")
    return Pupil(model.to(dist.device()), like, view, train, labelled(places[1], train.classes))


def classes_key(like: dict) -> str:
    """What an architecture's builder calls the number of classes."""
    return "classes" if like["library"] == "course" else "num_classes"


def teacher_of(options: Options, pupil: Pupil) -> Callable[[Tensor], Tensor] | None:
    """The teacher, ready to be asked; one that knows other classes is refused."""
    if not options.teacher or options.distillation == "none":
        return None
    known, classes = about(options.teacher), pupil.classes
    model = shrunken.open_network(options.teacher, random=options.random)[0].to(dist.device()).requires_grad_(False)
    own = accepted(model, pupil.view, view_of(model, known.get("view")))
    outputs, names = outputs_of(model, example(own, dist.device())), list(known.get("classes", classes))
    if outputs != len(classes) or names != classes:
        pairs = zip(names, classes, strict=False)
        told = next((f"; {a} where this has {b}" for a, b in pairs if a != b), "")
        raise ValueError(
            f"the teacher {options.teacher} knows {outputs} classes and these are {len(classes)}{told}:"
            " they must be the same, in the same order"
        )
    return answers(model, own, pupil.view)


def accepted(model: nn.Module, view: View, own: View) -> View:
    """The teacher's own view, in the size that the pupil sees if the teacher takes it."""
    try:
        outputs_of(model, example(view, dist.device()))
    except ValueError:
        return own
    return replace(own, size=view.size)


def loaders(options: Options, pupil: Pupil) -> tuple[PrefetchLoader, PrefetchLoader]:
    """The training images, in random order, and those of validation."""
    own, view, workers = options.batch_size // dist.world(), pupil.view, options.workers
    train = limited(seen(pupil.train, view, not options.plain, options.randaugment), options.limit)
    val = limited(seen(pupil.val, view), options.limit)
    if size_of(train) < options.batch_size:
        raise ValueError(
            f"--batch-size {options.batch_size} is more than the {size_of(train)} training images in {pupil.train.root}"
        )
    return shuffled(train, view, own, workers, options.seed, options.erasing), in_order(val, view, own, workers)
