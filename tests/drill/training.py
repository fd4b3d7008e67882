"""Planted bugs in training and in what people build on it: losses, callbacks, frozen parameters."""

from __future__ import annotations

from .mutant import Mutant, tests_of

MODEL, TRAINING = "addergraph/model", "addergraph/training"


def freezing(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/test_freezing.py", *names)


def several(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/training/test_several_outputs.py", *names)


def sparsity(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/training/test_sparsity.py", *names)


MUTANTS = (
    Mutant(
        "what was left out of a filter learns no longer", f"{TRAINING}/optimizers.py",
        "sub(weights + held, step", "sub(weights, step",
        sparsity("test_the_update"),
    ),
    Mutant(
        "the best epoch may have all its taps", f"{TRAINING}/fit.py",
        "if not is_thinned(self.settings, at.epoch + 1):", "if False:",
        sparsity("test_the_best_epoch_has_the_share"),
    ),
    Mutant(
        "averages keep what is left out", f"{TRAINING}/sparsity.py",
        "mean[(mean > 0) & (weights <= 0)] = 0", "pass",
        sparsity("test_what_is_averaged_is_left_out_with_its_weight"),
    ),
    Mutant(
        "a layer is thinned whose input may be negative", f"{TRAINING}/sparsity.py",
        "if not nonnegative:", "if False:",
        sparsity("test_layers_that_are_left_alone"),
    ),
    Mutant(
        "the first pattern of a name wins", f"{MODEL}/freezing.py",
        "in reversed(self.rules) if _matches", "in self.rules if _matches",
        freezing("test_before_weights_exist_and_by_patterns"),
    ),
    Mutant(
        "frozen batch norms use the statistics of the batch", "addergraph/layers/batch_norm.py",
        "if x.builder.training and not self.is_frozen(gamma, beta):", "if x.builder.training:",
        freezing("test_a_frozen_batch_norm_answers_in_training_as_in_inference"),
    ),
    Mutant(
        "a batch norm is frozen where one of its parameters is", "addergraph/layers/batch_norm.py",
        "return all(isinstance(t.value, Parameter) and t.value.frozen",
        "return any(isinstance(t.value, Parameter) and t.value.frozen",
        freezing("test_a_frozen_batch_norm_answers_in_training_as_in_inference"),
    ),
    Mutant(
        "momenta of frozen batch norms are not saved", f"{MODEL}/file.py",
        "replay_of(model.holding(()).graph)", "replay_of(model.graph)",
        freezing("test_a_file_keeps_it_and_momenta_of_frozen_batch_norms"),
    ),
    Mutant(
        "the batch norm behind a new last layer keeps its weights", f"{MODEL}/transfer.py",
        "later = downstream(graph.nodes, _head_of(graph).outputs)",
        "later = set(_head_of(graph).outputs)",
        tests_of("addergraph/test_transfer.py", "test_all_but_the_end_is_kept"),
    ),
    Mutant(
        "a new last layer stays frozen", f"{MODEL}/transfer.py",
        "        made.unfreeze(*(p.name for p in anew))\n", "        anew.clear()\n",
        tests_of("addergraph/test_transfer.py", "test_the_end_learns_whatever_was_frozen"),
    ),
    Mutant(
        "huber is linear from the beginning", f"{TRAINING}/losses.py",
        "cut * (distance - 0.5 * cut)", "cut * distance",
        tests_of("addergraph/training/test_losses.py", "test_named_losses_and_their_gradients"),
    ),
    Mutant(
        "a checkpoint takes any function for its loss", f"{TRAINING}/losses.py",
        'text = str(self.graph((2, *answer)))', 'text = ""',
        tests_of("addergraph/training/test_losses.py", "test_a_run_goes_on_with_the_same_function"),
    ),
    Mutant(
        "what a callback raises costs the steps of the epoch", f"{TRAINING}/fit.py",
        "            self._save_interrupted(self.at.seconds)\n", "",
        tests_of(
            "addergraph/training/test_callbacks.py",
            "test_an_exception_comes_out_and_the_run_survives",
        ),
    ),
    Mutant(
        "a callback that stopped a run stops the next one", f"{TRAINING}/fit.py",
        "callback.model, callback.stop_training = self.step.model, False",
        "callback.model = self.step.model",
        tests_of(
            "addergraph/training/test_callbacks.py",
            "test_stopping_leaves_a_checkpoint_to_go_on_from",
        ),
    ),
    Mutant(
        "a run that stops within an epoch keeps the running statistics", f"{TRAINING}/fit.py",
        "        if step:\n            self.statistics(epoch)\n        elif epoch",
        "        if epoch",
        tests_of(
            "addergraph/training/test_statistics.py",
            "test_so_has_a_run_that_stops_within_an_epoch",
        ),
    ),
    Mutant(
        "dropouts of every seed leave out the same", f"{TRAINING}/step.py",
        "integer(\"seed\", seed, 0) % SEEDS * STEPS", "0 * STEPS",
        tests_of("addergraph/test_dropout.py", "test_another_seed_of_a_run_leaves_out_others"),
    ),
    Mutant(
        "sys.exit() in a callback costs the steps of the epoch", f"{TRAINING}/fit.py",
        "except (KeyboardInterrupt, SystemExit, ProcessError):", "except KeyboardInterrupt:",
        tests_of(
            "addergraph/training/test_callbacks.py", "test_an_exit_saves_the_last_whole_step"
        ),
    ),
    Mutant(
        "weight decay comes after momentum", "addergraph/training/optimizers.py",
        "_assign(velocity, new)",
        "_assign(velocity, sub(new, self.weight_decay * weights))",
        tests_of("passes/test_train_step.py", "test_the_authors_recipe_over_three_steps"),
    ),
    Mutant(
        "clipping counts parameters with an adaptive rate", "addergraph/training/optimizers.py",
        "_square_sum(g) for p, g in gradients.items() if p.eta is None]",
        "_square_sum(g) for p, g in gradients.items()]",
        tests_of("passes/test_optimizers.py", "test_rules_against_loops"),
    ),
    Mutant(
        "wide matrices move with the whole rate", "addergraph/training/optimizers.py",
        "mul(self._rate(p, rate), direction, name=\"step\")",
        "mul(rate, direction, name=\"step\")",
        tests_of("addergraph/training/test_learns.py", "test_only_wide_matrices_move_slower"),
    ),
    Mutant(
        "statistics are of the epoch's first batch alone", "addergraph/training/statistics.py",
        "islice(batches, self.batches)", "islice(batches, 1)",
        tests_of(
            "addergraph/training/test_statistics.py",
            "test_the_result_has_the_statistics_of_its_weights",
        ),
    ),
    Mutant(
        "validation sees the running statistics", "addergraph/training/fit.py",
        "        if self._looks_each_epoch:\n            self.statistics(number)\n", "",
        tests_of(
            "addergraph/training/test_statistics.py",
            "test_validation_means_something_at_a_high_rate",
        ),
    ),
    Mutant(
        "nesterov looks along the gradient twice", "addergraph/training/optimizers.py",
        "add(g, self.momentum * new, name=\"ahead\")",
        "add(new, self.momentum * g, name=\"ahead\")",
        tests_of("passes/test_optimizers.py", "test_rules_against_loops"),
    ),
    Mutant(
        "adam divides by the uncorrected second moment", "addergraph/training/optimizers.py",
        "div(second, correction2)", "second",
        tests_of("passes/test_optimizers.py", "test_rules_against_loops"),
    ),
    Mutant(
        "a resumed epoch begins at its first batch", "addergraph/training/fit.py",
        "self.feed.epoch(number, self.at.step)", "self.feed.epoch(number)",
        tests_of("addergraph/training/test_resume.py", "test_going_on_within_an_epoch"),
    ),
    Mutant(
        "a checkpoint forgets the epoch's loss so far", "addergraph/training/fit.py",
        "self.at = checkpoint.position",
        "self.at = checkpoint.position\n        self.at.loss = 0.0",
        tests_of("addergraph/training/test_resume.py", "test_going_on_within_an_epoch"),
    ),
    Mutant(
        "weights of losses count for nothing", f"{TRAINING}/objective.py",
        "terms.append(parts[-1] if weight == 1 else weight * parts[-1])", "terms.append(parts[-1])",
        several("test_networks_that_share_nothing_train_as_alone"),
    ),
    Mutant(
        "the other inputs are not shuffled with the images", f"{TRAINING}/feed.py",
        "(x if n == self.image else a[index])", "(x if n == self.image else a[: len(index)])",
        several("test_images_alone_are_augmented_and_normalized"),
    ),
    Mutant(
        "an epoch's numbers of an output are those of its last step", f"{TRAINING}/fit.py",
        "at.parts.get(name, 0.0) + number", "number",
        several("test_a_run_has_numbers_of_every_output"),
    ),
    Mutant(
        "a checkpoint loses the numbers of the outputs", f"{TRAINING}/checkpoint.py",
        'without=() if at.parts else ("parts",)', 'without=("parts",)',
        several("test_a_stopped_run_goes_on_to_the_bit"),
    ),
    Mutant(
        "an input that nothing reads is let pass", f"{MODEL}/samples.py",
        "if dead and len(graph.inputs) > 1:", "if False:",
        tests_of("addergraph/test_several_ends.py", "test_an_input_that_nothing_reads"),
    ),
    Mutant(
        "eta is scaled by the number of elements, not its root",
        "addergraph/training/optimizers.py",
        "math.sqrt(p.type.elements)", "p.type.elements",
        tests_of("passes/test_train_step.py", "test_the_authors_recipe_over_three_steps"),
    ),
)  # fmt: skip
