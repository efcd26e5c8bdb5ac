"""Bugs planted on purpose, in a copy of the package: each must turn some test red."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns("networks", "__pycache__")
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
BUGS = {  # what is wrong: (module, right, wrong, test that must notice)
    "a convolution in groups loses parts of groups": (
        "walks",
        'if getattr(layer, "groups", 1) > 1:',
        "if False:",
        "test_graphs.py::test_erasing_equals_removing[regnet_x_400mf]",
    ),
    "merged patches are cut as one": (
        "walks",
        "for s in there for k in range(4)",
        "for s in there for k in range(1)",
        "test_graphs.py::test_erasing_equals_removing[swin_tiny]",
    ),
    "the class scores are a group": (
        "walks",
        "if reached and all(node.outputs or not writes(graph, node, cutter) for node, cutter in reached):",
        "if reached:",
        "test_graphs.py::test_groups_written_by_hand_are_those_found",
    ),
    "a proof that believes everything": (
        "proof",
        "return bool((silent - small).abs().max() <= ENOUGH * silent.abs().max())",
        "return True",
        "test_graphs.py::test_what_cannot_be_cut_exactly_is_left_out_with_a_reason",
    ),
    "a floor that yields to rounding": (
        "plan",
        "scope(at_least(rivals, ",
        "scope((lambda rivals, least: rivals)(rivals, ",
        "test_prune.py::test_floors_hold_in_every_scope",
    ),
    "heads rounded to a multiple": (
        "plan",
        'masks |= chosen if part == "heads" else rounded(chosen, rivals, multiple)',
        "masks |= rounded(chosen, rivals, multiple)",
        "test_prune.py::test_heads_and_dimensions_have_ratios_of_their_own",
    ),
    "a stamp without the parameters": (
        "stamps",
        "json.dumps(parameters, sort_keys=True, default=repr), package()",
        "package()",
        "test_sweep.py::test_a_stamp_changes",
    ),
    "a failed run is finished": (
        "conditions",
        "== condition.stamp and not run.error",
        "== condition.stamp",
        "test_sweep.py::test_what_counts_as_finished",
    ),
    "a mean over all conditions": (
        "summaries",
        'names = [name for name in varying(done) if name != "seed"]',
        "names: list[str] = []",
        "test_sweep.py::test_means_are_over_seeds",
    ),
    "LAMP sums what is smaller": (
        "budgets",
        "squares[order].flip(0).cumsum(0).flip(0)",
        "squares[order].cumsum(0)",
        "test_budgets.py::test_lamp_is_its_definition",
    ),
    "LAMP not put back in its places": (
        "budgets",
        "share[order] = squares[order] /",
        "share[:] = squares[order] /",
        "test_budgets.py::test_lamp_keeps_the_order",
    ),
    "ERK fills a layer beyond its size": (
        "budgets",
        "if name not in full and scale * wanted[name] > sizes[name]}",
        "if False}",
        "test_budgets.py::test_erk_is_its_definition",
    ),
    "Taylor's gradients of the last batch only": (
        "scores",
        '            cross_entropy(model(x), y, reduction="sum").backward()',
        '            model.zero_grad()\n            cross_entropy(model(x), y, reduction="sum").backward()',
        "test_scores.py::test_taylor",
    ),
    "ties are kept": (
        "scopes",
        "mask = flat > cut",
        "mask = flat >= cut",
        "test_laws.py::test_exact_count_also_under_ties",
    ),
    "rounded down": ("scopes", "gone = round(", "gone = int(", "test_laws.py::test_scopes_count_exactly"),
    "global is layer-wise": (
        "scopes",
        "pieces = mask.split([s.numel() for s in scores.values()])",
        "pieces = [keep_top(s, sparsity) for s in scores.values()]",
        "test_laws.py::test_global_masks_are_torchs",
    ),
    "removed weights may return": (
        "scopes",
        "gone[name], -torch.inf)",
        "gone[name], torch.inf)",
        "test_laws.py::test_monotone",
    ),
    "largest go": ("scores", "w.detach().abs()", "-w.detach().abs()", "test_laws.py::test_layerwise_masks_are_torchs"),
    "beta forgotten": (
        "channels",
        'if axis != 1 or not name.endswith(".weight"):',
        'if not name.endswith("bias") and (axis != 1 or not name.endswith(".weight")):',
        "test_laws.py::test_erasing_equals_removing",
    ),
    "L2 instead of L1": (
        "slimming",
        "gamma.detach().sign()",
        "gamma.detach()",
        "test_slimming.py::test_the_hook_adds",
    ),
    "the L1 term stays": ("slimming", "handle.remove()", "pass", "test_slimming.py::test_the_hook_adds"),
    "constants folded to the wrong side": (
        "slimming",
        "mean.sub_(constant)",
        "mean.add_(constant)",
        "test_slimming.py::test_folding_is_exact",
    ),
    "one writer of a stream is not heard": (
        "units",
        "torch.stack(gammas).sum(0)",
        "gammas[0]",
        "test_units.py::test_bn_scale",
    ),
    "a reader of the stem forgotten": (
        "models",
        'reads("layer1.0.conv1", "layer1.0.downsample.0")',
        'reads("layer1.0.conv1")',
        "test_laws.py::test_erasing_equals_removing",
    ),
    "silent channels on one side": (
        "models",
        "(outputs - inputs) // 2 :",
        "0 :",
        "test_measure_models.py::test_the_shortcut",
    ),
    "masks not held": (
        "train",
        "            weight.mul_(mask)",
        "            pass",
        "test_laws.py::test_removed_weights_stay",
    ),
    "momentum not resumed": (
        "checkpoints",
        'for n in tensors if ":" in n):',
        'for n in tensors if ":" in n and "momentum" not in n):',
        "test_train.py::test_batchnorm_and_log_are_resumed_too",
    ),
    "every epoch in the same order": (
        "train",
        "recipe.batch_size, seed * 10007 + epoch, recipe.flip",
        "recipe.batch_size, seed * 10007, recipe.flip",
        "test_train.py::test_each_epoch_has_its_own_order",
    ),
    "a late start with the first epochs' order": (
        "train",
        "range(first + len(log), recipe.epochs)",
        "range(len(log), recipe.epochs - first)",
        "test_train.py::test_a_late_start",
    ),
    "FLOPs for MACs": ("measure", "get_total_flops() // 2", "get_total_flops()", "test_laws.py::test_macs_by_hand"),
    "mode not restored": (
        "measure",
        "module.training = before",
        "module.training = False",
        "test_measure_models.py::test_evaluation_restores",
    ),
    "mirrored always": (
        "data",
        "device=device) < 0.5",
        "device=device) < 1.5",
        "test_train.py::test_batches_flip_and_shift",
    ),
    "code not in the key": (
        "keys",
        "parts |= {module: tree(module) for module in with_imports(course_module(thing))}",
        "pass",
        "test_trials.py::test_a_key_changes",
    ),
    "half a line spoils the next": ("trials", 'data = b"\\n" + data', "pass", "test_trials.py::test_half_a_line"),
    "normal instead of Student": (
        "intervals",
        "float(stdtrit(n - 1, 0.975))",
        "1.96",
        "test_claims.py::test_interval_is_scipys",
    ),
    "not paired": (
        "claims",
        "return [at(more, k) - at(less, k) for k in both]",
        "return [at(more, k) - at(less, both[i - 1]) for i, k in enumerate(both)]",
        "test_claims.py::test_pairs_are_what_counts",
    ),
    "zeros counted before BatchNorm": (
        "activity",
        "scales(model, group) or writers(model, group)",
        "writers(model, group)",
        "test_activity.py::test_zeros_are_counted_after_batchnorm",
    ),
    "a ReLU in place is not seen": (
        "activity",
        "RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)",
        "RELUS = (torch.ops.aten.relu.default,)",
        "test_activity.py::test_every_form_of_relu",
    ),
    "only the last batch counts": (
        "activity",
        "found[label] = old + zero.sum(0), seen + len(zero)",
        "found[label] = zero.sum(0), len(zero)",
        "test_activity.py::test_a_perceptron_without_batchnorm",
    ),
    "the stem's ReLU for its residual stream": (
        "activity",
        "[*waiting, *(label for label in groups if label not in found)]",
        "[label for label in groups if label not in found]",
        "test_activity.py::test_residual_streams_are_refused",
    ),
    "the batch's gradient squared": (
        "curvature",
        """        for flowing, read in zip(d, x, strict=True):  # image by image: one gradient at a time
            g = (flowing @ read.mT).flatten(0, 1)
            found[name].addcmul_(g, g)
""",
        "        g = (d @ x.mT).sum(0).flatten(0, 1)\n        found[name].addcmul_(g, g)\n",
        "test_curvature.py::test_fisher_is_the_mean",
    ),
    "a batch's loss averaged": (
        "gradients",
        'reduction="sum"',
        'reduction="mean"',
        "test_curvature.py::test_the_size_of_a_batch_is_no_matter",
    ),
    "surgeon's updates added up": (
        "curvature",
        "both = gone[:, :, None] & gone[:, None, :]",
        "both = torch.diag_embed(gone)",
        "test_curvature.py::test_many_removals_at_once",
    ),
    "Taylor of each batch": (
        "scores",
        'cross_entropy(model(x), y, reduction="sum").backward()\n            count += len(x)',
        "cross_entropy(model(x), y).backward()\n            count += 1",
        "test_scores.py::test_taylor_is_the_change",
    ),
    "the original's inputs": (
        "regression",
        "tables(silent, listeners(group), batches)",
        "tables(model, listeners(group), batches)",
        "test_regression.py::test_reconstruction_is_least_squares_on_pruned_inputs",
    ),
    "one column for each channel": (
        "regression",
        "masks[name].repeat_interleave(weight[0, 0].numel())",
        "masks[name].repeat(weight[0, 0].numel())",
        "test_regression.py::test_reconstruction_is_least_squares_on_pruned_inputs",
    ),
    "ThiNet forgets what is gone": (
        "regression",
        "cross, gone[unit] = cross + gram[unit], True",
        "cross, gone[unit] = gram[unit], True",
        "test_regression.py::test_thinet_is_the_naive_loop",
    ),
    "the inverse is not updated": (
        "rebuild",
        "inverse -= column[:, None] * column / pivot",
        "inverse -= 0 * column[:, None] * column / pivot",
        "test_rebuild.py::test_obcs_row_is_least_squares",
    ),
    "a snapshot shares its memory": (
        "tickets",
        "name: t.detach().clone() for",
        "name: t.detach() for",
        "test_tickets.py::test_a_snapshot_is_not_touched",
    ),
    "BatchNorm's statistics are not rewound": (
        "tickets",
        'load_state(model, past, "this snapshot")',
        "load_state(model, model.state_dict() | {n: t for n, t in past.items() if 'running' not in n}, '')",
        "test_tickets.py::test_rewound_to_epoch_k",
    ),
    "the mask is lost on rewinding": (
        "tickets",
        "    apply_masks(model, masks)\n\n\n@torch.no_grad()",
        "\n\n@torch.no_grad()",
        "test_tickets.py::test_rewinding_brings_back",
    ),
    "a barrier against the worse end": (
        "tickets",
        "max(errors) - (errors[0] + errors[-1]) / 2",
        "max(errors) - max(errors[0], errors[-1])",
        "test_tickets.py::test_errors_between",
    ),
    "SynFlow with biases and means": (
        "scores",
        'constant = name.endswith(("bias", "running_mean"))',
        "constant = False",
        "test_tickets.py::test_synflow_is_conserved",
    ),
    "SNIP with BatchNorm's running statistics": (
        "scores",
        "copy.deepcopy(model).requires_grad_(True).train()",
        "copy.deepcopy(model).requires_grad_(True).eval()",
        "test_tickets.py::test_snip_is_the_slope",
    ),
    "a sparse layer's weights in another order, backward": (
        "sparse",
        "columns.argsort(stable=True)",
        "columns.argsort(stable=True, descending=True)",
        "test_sparse.py::test_outputs_and_gradients",
    ),
    "blocks not turned": (
        "sparse",
        "values[order].transpose(1, 2).contiguous()",
        "values[order]",
        "test_sparse.py::test_gradients_by_finite_differences",
    ),
    "a bias forgotten on the way back": (
        "sparse",
        "            dense.bias.copy_(layer.bias)",
        "            dense.bias.zero_()",
        "test_sparse.py::test_training_is_the_training",
    ),
    "dead is only what nothing feeds": (
        "reach",
        "heard.append((mask & heard[-1][:, None]).any(0))",
        "heard.append(torch.ones_like(mask[0]))",
        "test_reach.py::test_what_is_gone",
    ),
    "death does not spread": (
        "reach",
        "fed.append((mask & fed[-1]).any(1))",
        "fed.append(mask.any(1))",
        "test_reach.py::test_what_is_gone",
    ),
    "long pieces have larger scores": (
        "grains",
        "keep_top(sums / piece.bincount(), sparsity)",
        "keep_top(sums, sparsity)",
        "test_grains.py::test_pieces_by_a_double_loop",
    ),
    "masks not held between two cuts": (
        "schedules",
        "        hooks[0](step)\n",
        "",
        "test_schedules.py::test_counts_are_exact",
    ),
    "the first cut forgotten": (
        "schedules",
        "    if 0 in waiting:\n        tighten(0)\n",
        "    waiting.pop(0, None)\n",
        "test_schedules.py::test_the_hook_is_the_decisions_by_hand",
    ),
    "a decision that forgets what is gone": (
        "schedules",
        "scope(restrict(criterion(model), masks), ",
        "scope(criterion(model), ",
        "test_schedules.py::test_masks_that_were_there_before",
    ),
    "cubic forgets where it begins": (
        "schedules",
        "(final - initial) * (1 - k",
        "final * (1 - k",
        "test_schedules.py::test_cubic_begins",
    ),
    "a teacher's temperature is not given back": (
        "distill",
        "alpha * temperature**2 * divergence",
        "alpha * divergence",
        "test_distill.py::test_soft_is_its_formula and 4.0",
    ),
    "the divergence turned round": (
        "distill",
        "kl_div(ours, theirs,",
        "kl_div(theirs, ours,",
        "test_distill.py::test_soft_is_its_formula and 4.0",
    ),
    "a teacher that is asked in training mode": (
        "distill",
        "with evaluating(teacher):",
        "if teacher:",
        "test_distill.py::test_the_teacher_is_asked",
    ),
    "a kind that does not know writers from readers": (
        "kinds",
        '(" reads" if axis_of(place) == 1 else " writes") if table else ""',
        '" meets" if table else ""',
        "test_channels.py::test_kinds_tell_readers_from_writers",
    ),
    "a dimension of all heads is like a hidden unit": (
        "kinds",
        'f" {count // least} times" if count > least else ""',
        '""',
        "test_channels.py::test_kinds_of_the_courses_networks",
    ),
    "every group ranked alone": (
        "kinds",
        "globally(rivals, amounts[kind]).items()",
        "{n: globally({n: s}, amounts[kind])[n] for n, s in rivals.items()}.items()",
        "test_channels.py::test_isomorphic_is_global_within_a_kind",
    ),
    "a network's file written over the old one at once": (
        "shrunken",
        'return file.with_name(f".{file.name}.new")',
        "return file",
        "test_shrunken.py::test_a_killed_writer",
    ),
    "a network's file is believed unread": (
        "shrunken",
        'digest(place) == record["sha256"]',
        "True",
        "test_shrunken.py::test_an_altered_file",
    ),
    "a description may set anything": (
        "fitting",
        "if own is None or not is_plain(value) or not alike(own, value):",
        "if own is None:",
        "test_shrunken.py::test_sizes_that_a_layer",
    ),
    "tables that no state dict holds are forgotten": (
        "fitting",
        "return model.state_dict() | changed",
        "return model.state_dict()",
        "test_shrunken.py::test_what_comes_back and tables",
    ),
    "a pickle may name anything": (
        "husks",
        "if not allowed(name, layers):",
        "if not name:",
        "test_adopt.py::test_a_pickle_with_code",
    ),
    "an attention of another time": (
        "drift",
        'new["fused_attn"] = False',
        "pass",
        "test_adopt.py::test_the_scale_of_the_time",
    ),
    "every process reads all images": (
        "folders",
        "range(dist.rank(), size_of(images), dist.world())",
        "range(size_of(images))",
        "test_folders.py::test_every_image_is_evaluated_once",
    ),
    "the optimizer of a fine-tuning begins anew": (
        "states",
        '{"state": state, ',
        '{"state": {}, ',
        "test_tuning.py::test_a_run_killed_after_an_epoch",
    ),
    "the moving average begins anew": (
        "tuning",
        ' | ({"average": run.average.module} if run.average else {})',
        "",
        "test_tuning.py::test_a_run_killed_after_an_epoch",
    ),
    "a teacher sees the pupil's colours": (
        "teachers",
        "return teacher(x).float()",
        "return teacher((x * own_std + own_mean - mean) / std).float()",
        "test_tuning.py::test_a_teacher_sees_the_same_images",
    ),
    "a group's readers do not count": (
        "importance",
        "first = parts[tensor].movedim(axis_of(place), 0)",
        "first = parts[tensor]",
        "test_channels.py::test_gathered_from",
    ),
    "a budget that is only nearly met": (
        "spending",
        "if left <= budget else",
        "if left <= budget * 1.1 else",
        "test_structured.py::test_a_budget_is_met",
    ),
    "2:4 along the outputs": (
        "patterns",
        "s.movedim(1, -1).unflatten",
        "s.movedim(0, -1).unflatten",
        "test_structured.py::test_two_of_four",
    ),
    "a network born again keeps its weights": (
        "spending",
        "                reset()\n",
        "                pass\n",
        "test_structured.py::test_a_network_born_again",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug, tmp_path):
    module, right, wrong, test = BUGS[bug]
    shutil.copytree(ROOT / "course_utils", tmp_path / "course_utils", ignore=LEFT_OUT)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=LEFT_OUT)
    path = tmp_path / "course_utils" / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    assert source.count(right) >= 1, f"the code has changed: plant {bug!r} anew"
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    file, name = test.split("::")
    command = [*PYTEST, "--rootdir", str(tmp_path), f"tests/{file}", "-k", name]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    io = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    run = subprocess.run(command, cwd=tmp_path, env=environment, **io)
    assert run.returncode == 1 and "1 failed" in run.stdout, run.stdout + run.stderr
