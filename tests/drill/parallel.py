"""Planted bugs in what several processes share: halves of a step, exchanges, parts, failures."""

from __future__ import annotations

from .mutant import Mutant, tests_of

TRAINING = "addergraph/training"


def parallel(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/training/test_parallel.py", *names)


def buckets(*names: str) -> tuple[str, ...]:
    return tests_of("addergraph/training/test_buckets.py", *names)


def halves(*names: str) -> tuple[str, ...]:
    return tests_of("passes/test_train_halves.py", *names)


MUTANTS = (
    Mutant(
        "the variance of a batch lacks that of its parts' means", "passes/replicas.py",
        "add(variance, deviation * deviation,", "add(variance, deviation * 0.0,",
        halves("test_synchronized_parts_give_what_the_whole_batch_gives"),
    ),
    Mutant(
        "the gradient of a mean over replicas is a replica's own",
        "addergraph/ops/pointwise/replica_mean.py", "return (replica_mean(g),)", "return (g,)",
        halves("test_synchronized_parts_give_what_the_whole_batch_gives"),
    ),
    Mutant(
        "running statistics are not exchanged", "passes/train_step.py",
        "moved = [u for u in forward.updates if u.value in sampled]", "moved = []",
        halves("test_halves_of_a_whole_batch_are_the_step"),
    ),
    Mutant(
        "parts weigh alike", f"{TRAINING}/replicas.py",
        "np.diff(self.bounds(samples)) / samples", "np.ones(self.parts) / self.parts",
        parallel("test_what_a_process_gets"),
    ),
    Mutant(
        "a sum starts with this process's part", f"{TRAINING}/replicas.py",
        "lambda: self._sum(rows, out)",
        "lambda: self._sum(np.roll(every, -self.rank, 0).reshape(self.parts, -1), out)",
        parallel("test_the_same_bits_for_any_number_of_processes"),
    ),
    Mutant(
        "all parts leave out the same elements", f"{TRAINING}/parallel.py",
        "+ self.replicas.own[slot]", "+ slot",
        parallel("test_the_same_bits_for_any_number_of_processes"),
    ),
    Mutant(
        "a part draws its own augmentation", "addergraph/data/loader.py",
        "self.augment.apply(x, random, *of)", "self.augment.apply(x, random)",
        parallel("test_a_part_of_a_batch_is_as_in_the_whole"),
    ),
    Mutant(
        "a bucket is told of when its first value is there", "passes/replicas.py",
        "behind = {values[-1]: values for", "behind = {values[0]: values[:1] for",
        halves("test_flags_are_set_once_a_bucket_is_computed"),
    ),
    Mutant(
        "a flag tells of an output that is copied in the end", "passes/replicas.py",
        "and optimized.outputs.count(its) == 1", "",
        halves("test_a_value_that_leaves_twice_has_no_flag"),
    ),
    Mutant(
        "an exchange scales the gradients that the program reads", f"{TRAINING}/replicas.py",
        "np.multiply(vector, share, out=row)", "row[...] = np.multiply(vector, share, out=vector)",
        buckets("test_an_exchange_leaves_its_vectors_as_they_are"),
    ),
    Mutant(
        "a step believes the flags of the one before", f"{TRAINING}/parallel.py",
        "            flag[...] = 0\n", "            pass\n",
        buckets("test_an_exchange_begins_while_the_rest_is_computed"),
    ),
    Mutant(
        "an exchange waits for the whole step", f"{TRAINING}/buckets.py",
        "self._replicas.during(compute, self._look)", "compute()",
        buckets("test_an_exchange_begins_while_the_rest_is_computed"),
    ),
    Mutant(
        "the last bucket is not exchanged", f"{TRAINING}/buckets.py",
        "(at == last or 4 * (end - start) >= least)", "4 * (end - start) >= max(least, 1)",
        buckets("test_spans_have_enough_and_are_in_order"),
    ),
    Mutant(
        "each process validates on its share alone", f"{TRAINING}/validation.py",
        "hits = shared.total(hits)", "pass",
        parallel("test_the_same_bits_for_any_number_of_processes"),
    ),
    Mutant(
        "each process estimates statistics by its own batches", f"{TRAINING}/statistics.py",
        "every = self.replicas.gather(mine)", "every = mine[None]",
        parallel("test_the_same_bits_for_any_number_of_processes"),
    ),
    Mutant(
        "an error stays in its process", f"{TRAINING}/replicas.py",
        'self.tell(str(error) or "it was interrupted")', "pass",
        parallel("test_an_error_of_one_process_reaches_all"),
    ),
    Mutant(
        "processes do not compare their data", f"{TRAINING}/prepare.py",
        '"the data": identity.data,', "",
        parallel("test_processes_that_work_on_something_else"),
    ),
    Mutant(
        "only who prints asks whether a callback stopped", f"{TRAINING}/fit.py",
        "stopped = self._stopped()", "stopped = settings.verbose and self._stopped()",
        parallel("test_one_callback_stops_all"),
    ),
    Mutant(
        "a run of other parts goes on", f"{TRAINING}/checkpoint.py",
        "for name in [*wanted, *made_with]:", "for name in wanted:",
        parallel("test_parts_decide_bits_and_a_checkpoint_says_so"),
    ),
)  # fmt: skip
