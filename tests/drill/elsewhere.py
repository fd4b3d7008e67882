"""Planted bugs in the other kernels, the module, the passes and the graph itself."""

from __future__ import annotations

from .mutant import Mutant, tests_of

KERNELS = "codegen/kernels"


def verification(name: str) -> tuple[str, ...]:
    return tests_of("addergraph/test_verification.py", name)


def kernel(file: str, *names: str) -> tuple[str, ...]:
    return tests_of(f"codegen/kernels/{file}", *names)


KERNEL_MUTANTS = (
    Mutant(
        "the polynomial of exp is off in the last digits", f"{KERNELS}/math.py",
        "0.04166646674275398", "0.04167646674275398",
        kernel("test_math.py", "test_within_the_stated_ulps_and_equal_bits_on_every_isa"),
    ),
    Mutant(
        "exp rounds to zero where results are denormal", f"{KERNELS}/math.py",
        "EXP_LEAST, EXP_MOST = -104.0, 89.0", "EXP_LEAST, EXP_MOST = -88.0, 89.0",
        kernel("test_math.py"),
    ),
    Mutant(
        "logarithms of denormals are off by ln 2", f"{KERNELS}/math.py",
        "b.select(small, _like_bits(x, 23), _like_bits(x, 0))",
        "b.select(small, _like_bits(x, 22), _like_bits(x, 0))",
        kernel("test_math.py", "test_within_the_stated_ulps_and_equal_bits_on_every_isa"),
    ),
    Mutant(
        "sigmoid of large negative numbers is that of their magnitude", f"{KERNELS}/math.py",
        "above = e.b.select(e.b.fcmp_ordered(\"<\", x, _like(x, 0.0)), power, one)", "above = one",
        kernel("test_math.py", "test_special_values_are_exact"),
    ),
    Mutant(
        "tanh forgets the sign of zero", f"{KERNELS}/math.py",
        "return b.bitcast(b.or_(b.bitcast(y, _bits(x)), sign), x.type)",
        "return b.select(b.fcmp_ordered(\"<\", x, _like(x, 0.0)), b.fneg(y), y)",
        kernel("test_math.py", "test_special_values_are_exact"),
    ),
    Mutant(
        "resized rows stand where unresized ones would", f"{KERNELS}/movement.py",
        "strides = (image, a * row, row, b * pixel, pixel, channel)",
        "strides = (image, row, row, b * pixel, pixel, channel)",
        kernel("test_movement.py", "test_larger_tensors_in_halos"),
    ),
    Mutant(
        "softmax does not subtract the maximum", f"{KERNELS}/reduction/softmax.py",
        "e.b.fsub(found, e.splat(m, e.lanes))", "found",
        kernel("test_softmax.py", "test_special_rows", "test_softmax_within_its_bound"),
    ),
    Mutant(
        "lanes past the end of a row count in softmax", f"{KERNELS}/reduction/softmax.py",
        "e.splat(m, e.lanes))), 0.0)", "e.splat(m, e.lanes))), 1.0)",
        kernel("test_softmax.py", "test_softmax_within_its_bound"),
    ),
    Mutant(
        "the logarithm of a loss is not corrected", f"{KERNELS}/reduction/softmax.py",
        "log = b.fadd(e.widen(emit_log(e, near)), rest)", "log = e.widen(emit_log(e, near))",
        kernel("test_softmax.py", "test_small_losses_keep_their_digits"),
    ),
    Mutant(
        "the variance is taken about zero", f"{KERNELS}/reduction/channel_sums.py",
        "return e.widen(e.b.select(finite, first, zero))", "return e.widen(zero)",
        kernel("test_reduce.py", "test_statistics_survive_a_mean_far_above_the_spread"),
    ),
    Mutant(
        "statistics are shifted by an infinity", f"{KERNELS}/reduction/channel_sums.py",
        "e.b.select(finite, first, zero)", "first",
        kernel("test_reduce.py", "test_statistics_of_numbers_that_are_not_finite"),
    ),
    Mutant(
        "channel sums are added up before all chunks are there", f"{KERNELS}/reduction/_columns.py",
        "        e.barrier()\n", "",
        kernel("test_channel_sums.py"),
    ),
    Mutant(
        "channel sums leave out the last chunk's rows", f"{KERNELS}/reduction/_columns.py",
        "e.minimum(e.add(first, CHUNK_ROWS), c.rows) if c.chunks > 1 else c.rows",
        "e.add(first, CHUNK_ROWS) if c.chunks > 1 else c.rows",
        kernel("test_channel_sums.py", "test_sums_and_values"),
    ),
    Mutant(
        "a chunk of channel sums begins its first line anew", f"{KERNELS}/reduction/_columns.py",
        "low = e.maximum(0, e.sub(first, begin))", "low = 0",
        kernel("test_channel_sums.py", "test_bits_are_those_of_sums_alone"),
    ),
    Mutant(
        "values beside channel sums are stored unmasked", f"{KERNELS}/reduction/_columns.py",
        "e.store(value, e.at(p, v * a.strides[-1]), a.dtype, count)",
        "e.store(value, e.at(p, v * a.strides[-1]), a.dtype)",
        kernel("test_channel_sums.py", "test_sums_and_values"),
    ),
    Mutant(
        "a maximum of negative zeros is one", f"{KERNELS}/reduction/reduce.py",
        "return lambda e, total: [e.b.fadd(total, constant(total.type, 0.0))]",
        "return lambda e, total: [total]",
        kernel("test_reduce.py", "test_nan_infinities_and_zeros"),
    ),
    Mutant(
        "sums of integers carry nothing", f"{KERNELS}/reduction/reduce.py",
        "lambda e, a, b: e.b.add(a, b))", "lambda e, a, b: e.b.or_(a, b))",
        kernel("test_reduce.py", "test_integers_wrap"),
    ),
    Mutant(
        "argmax takes the last of equal elements", f"{KERNELS}/reduction/reduce.py",
        'ahead = e.b.fcmp_unordered(">", value, most)',
        'ahead = e.b.fcmp_unordered(">=", value, most)',
        kernel("test_reduce.py", "test_argmax"),
    ),
    Mutant(
        "lanes past the end of a row take part in a fold", f"{KERNELS}/reduction/_fold.py",
        "e.b.select(here, term, self._start(lanes))", "term",
        kernel("test_reduce.py", "test_nan_infinities_and_zeros"),
    ),
    Mutant(
        "the rest of a long row overwrites its first chunk", f"{KERNELS}/reduction/_fold.py",
        "first += part.chunks", "first += 0",
        kernel("test_reduce.py", "test_chunks"),
    ),
    Mutant(
        "chunks are folded in an order that depends on threads", f"{KERNELS}/reduction/_fold.py",
        "partial = e.load(self._partial(k, chunk, column),",
        "chunk = e.mod(e.add(chunk, e.threads), cut.chunks)\n"
        "                partial = e.load(self._partial(k, chunk, column),",
        kernel("test_reduce.py", "test_sums_that_cancel_have_the_same_bits_for_any_threads"),
    ),
    Mutant(
        "the last of equal maxima takes the gradient", f"{KERNELS}/reduction/pool.py",
        'ahead = e.b.fcmp_unordered(">", value, most)',
        'ahead = e.b.fcmp_unordered(">=", value, most)',
        kernel("test_pool.py", "test_the_first_maximum_counts_nan_and_signed_zeros"),
    ),
    Mutant(
        "averages divide by the square of the window's height", f"{KERNELS}/reduction/pool.py",
        "float(op.area)", "float(op.window[0] ** 2)",
        kernel("test_pool.py", "test_any_geometry"),
    ),
    Mutant(
        "windows reach one row beyond the image", f"{KERNELS}/reduction/pool.py",
        "- before + size > extent:", "- before + size > extent + 1:",
        kernel("test_pool.py", "test_any_geometry"),
    ),
    Mutant(
        "the gradient of an average misses its last window", f"{KERNELS}/reduction/pool.py",
        "e.add(e.div(ahead, stride), 1)", "e.div(ahead, stride)",
        kernel("test_pool.py", "test_the_usual_pooling"),
    ),
    Mutant(
        "concat forgets all but the last operand's size", f"{KERNELS}/movement.py",
        "start[op.axis] += operand.shape[op.axis]", "start[op.axis] = operand.shape[op.axis]",
        kernel("test_movement.py", "test_any_movement"),
    ),
    Mutant(
        "padding before and after is swapped", f"{KERNELS}/movement.py",
        "_from(e, into, op.before)", "_from(e, into, op.after)",
        kernel("test_movement.py", "test_any_movement"),
    ),
    Mutant(
        "permutations are inverted", f"{KERNELS}/movement.py",
        "x.strides[axis] for axis in op.permutation",
        "x.strides[op.permutation.index(axis)] for axis in range(len(op.permutation))",
        kernel("test_movement.py", "test_any_movement", "test_larger_tensors_in_halos"),
    ),
    Mutant(
        "halos are filled with ones", f"{KERNELS}/movement.py",
        "operand.type.dtype, strides), 0.0)", "operand.type.dtype, strides), 1.0)",
        kernel("test_movement.py", "test_zeroing_a_halo_touches_the_ring_and_nothing_else"),
    ),
    Mutant(
        "casts to u8 saturate as to i8", f"{KERNELS}/pointwise.py",
        "b, (low, high) = c.b, INTEGER_BOUNDS[to]", "b, (low, high) = c.b, (-128, 127)",
        kernel("test_pointwise.py", "test_cast_between_all_dtypes"),
    ),
    Mutant(
        "a cast of NaN to i8 is its least", f"{KERNELS}/pointwise.py",
        "b.select(b.fcmp_ordered(\"ord\", x, x), x, zero) if low else x", "x",
        kernel("test_pointwise.py", "test_cast_between_all_dtypes"),
    ),
    Mutant(
        "select takes the other operand", f"{KERNELS}/pointwise.py",
        "c.b.select(condition, x, y)", "c.b.select(condition, y, x)",
        kernel("test_pointwise.py", "test_select_and_full"),
    ),
    Mutant(
        "axes of size 1 are not broadcast", f"{KERNELS}/_nest.py",
        "steps = (0 if n == 1 else s for", "steps = (s for",
        kernel("test_pointwise.py", "test_broadcasting"),
    ),
    Mutant(
        "the last vector of a row is stored unmasked", f"{KERNELS}/_nest.py",
        "count, run - rest, rest)", "count, run - rest, self.lanes)",
        kernel("test_pointwise.py", "test_fused_group"),
    ),
    Mutant(
        "the last chunk of rows has a whole one's rows", f"{KERNELS}/_nest.py",
        "e.minimum(chunk, e.sub(rows, first))", "chunk",
        kernel("test_pointwise.py", "test_fused_group"),
    ),
)  # fmt: skip

PROGRAM_MUTANTS = (
    Mutant(
        "threads leave a gap between their shares", "codegen/emit/builder.py",
        "high = self.div(self.mul(count, self.add(self.thread, 1)), self.threads)",
        "high = self.add(low, self.div(count, self.threads))",
        kernel("test_pointwise.py", "test_fused_group"),
    ),
    Mutant(
        "shares of threads overlap by one item", "codegen/emit/builder.py",
        "self.threads)\n        return low, high\n",
        "self.threads)\n        return low, self.minimum(count, self.add(high, 1))\n",
        tests_of("codegen/test_builder.py", "test_shares_cover_every_item_once_and_evenly"),
    ),
    Mutant(
        "steps that fill no loop body are dropped", "codegen/emit/builder.py",
        "return several(whole, count % unroll, after)", "return after",
        kernel(
            "test_contraction.py",
            "test_layers_have_the_bits_of_the_reference_on_exact_data[tails-direct]",
        ),
    ),
    Mutant(
        "what is not batched advances from sample to sample", "codegen/emit/module.py",
        "v.type.nbytes if b else 0", "v.type.nbytes",
        tests_of("codegen/test_jit.py", "test_results_do_not_depend_on_threads"),
    ),
    Mutant(
        "samples behind the blocks are the first ones again", "codegen/run/jit.py",
        "[a[done:] if own else a for a, own in ends]", "[a for a, own in ends]",
        tests_of(
            "codegen/test_blocks.py", "test_any_number_of_samples_has_the_bits_of_one_at_a_time"
        ),
    ),
    Mutant(
        "blocks keep the weights of before", "codegen/run/jit.py",
        "self._numbers = _Numbers(given, _packed(self.built, given))",
        "old = getattr(self, \"_numbers\", None)\n"
        "        self._numbers = _Numbers(given, _packed(self.built, given))\n"
        "        self._numbers._of_block = old and old._of_block",
        tests_of("codegen/test_blocks.py", "test_new_weights_are_those_of_blocks_too"),
    ),
    Mutant(
        "blocks may be of any size", "codegen/emit/blocks.py",
        "return max(machine.l2, ", "return max(1 << 40, ",
        tests_of("codegen/test_blocks.py"),
    ),
    Mutant(
        "the last block of a bound batch moves back too far", "codegen/emit/module.py",
        "lowered.blocks[-1]", "(lowered.blocks[-1] - 1)",
        tests_of("codegen/test_blocks.py", "test_a_bound_batch_runs_in_blocks_that_fit"),
    ),
    Mutant(
        "blocks that are left when each thread had as many are not computed",
        "codegen/emit/module.py",
        "e.mul(each, thread), e.mul(each, threads)", "e.mul(each, thread), count",
        tests_of("codegen/test_blocks.py", "test_a_bound_batch_runs_in_blocks_that_fit"),
    ),
    Mutant(
        "threads do not wait between kernels", "codegen/emit/module.py",
        "self._call(function, [*pointers, workspace])\n        self._wait()\n",
        "self._call(function, [*pointers, workspace])\n",
        tests_of("codegen/test_module.py"),
    ),
    Mutant(
        "halos are not zeroed", "codegen/emit/module.py",
        "if operand.layout.halo != Halo() and operand.layout.extent:", "if False:",
        tests_of("test_random_graphs.py"),
    ),
    Mutant(
        "inputs that start between elements are taken as they are", "addergraph/ir/interpreter.py",
        'np.require(array, wanted, ("C", "ALIGNED"))', 'np.require(array, wanted, ("C",))',
        tests_of("addergraph/test_interpreter.py"),
    ),
    Mutant(
        "inputs of a shape seen before may start between elements", "codegen/run/jit.py",
        ".c_contiguous and flags.aligned", ".c_contiguous",
        tests_of("codegen/test_jit.py", "test_inputs_may_start_between_elements"),
    ),
    Mutant(
        "equal calls on two parameters share one block of weights", "codegen/emit/module.py",
        "self._entry((v.name, call, operand), v", "self._entry((call, operand), v",
        tests_of("codegen/test_module.py"),
    ),
    Mutant(
        "pass managers are never freed", "codegen/llvm.py",
        "    _free(passes)", "    passes.close()",
        tests_of("codegen/test_llvm.py", "test_a_compilation_leaves_little_memory_behind"),
    ),
    Mutant(
        "types and constants of every module are kept", "codegen/llvm.py",
        "llvm.parse_assembly(ir_text, llvm.create_context())", "llvm.parse_assembly(ir_text)",
        tests_of("codegen/test_llvm.py", "test_a_compilation_leaves_little_memory_behind"),
    ),
    Mutant(
        "a long body leaves out its first part", "codegen/emit/module.py",
        "for part in parts]", "for part in parts[1:]]",
        tests_of("test_growth.py", "test_long_bodies_are_cut_and_compute_the_same"),
    ),
    Mutant(
        "an interrupted step is saved half", "addergraph/training/fit.py",
        "if self.before_is == (at.epoch, at.step):", "if self.before_is == (-1, -1):",
        tests_of("addergraph/training/test_resume.py"),
    ),
    Mutant(
        "the stack of a call forgets what it calls", "codegen/inspect/stack.py",
        "return machine.per_call + function.takes + deepest",
        "return machine.per_call + function.takes",
        tests_of("codegen/test_stack.py"),
    ),
)  # fmt: skip

PLAN = "passes/plan_memory.py"
PASS_MUTANTS = (
    Mutant(
        "buffers end one node early", PLAN,
        "(starts <= buffer.end) & (buffer.start <= ends)",
        "(starts < buffer.end) & (buffer.start < ends)",
        tests_of("passes/test_plan_memory.py"),
    ),
    Mutant(
        "an alias does not keep its buffer alive", PLAN,
        "place.buffer.end = max(place.buffer.end, self.last[v])", "pass",
        tests_of("passes/test_plan_memory.py"),
    ),
    Mutant(
        "results overwrite operands of other shapes", PLAN,
        "equal = place.layout == layout and operand.type == v.type",
        "equal = place.layout.dense and layout.dense",
        tests_of("passes/test_plan_memory.py"),
    ),
    Mutant(
        "a parameter is updated while its reshapes are still read", PLAN,
        "any(self.last[view] > time for view in views)", "self.last[parameter] > time",
        tests_of("passes/test_plan_memory.py"),
    ),
    Mutant(
        "workspaces are alive after their node", PLAN,
        "planner.new_buffer(workspaces[node.name], time, time)",
        "planner.new_buffer(workspaces[node.name], time + 1, time + 1)",
        tests_of("passes/test_plan_memory.py"),
    ),
    Mutant(
        "the last reader alone decides the halo", PLAN,
        "wanted[v] = wanted.get(v, DENSE).union(halo)", "wanted[v] = halo",
        tests_of("passes/test_plan_memory.py"),
    ),
    Mutant(
        "common subexpressions ignore attributes", "passes/eliminate.py",
        "key = node.op.key, node.inputs", "key = type(node.op), node.inputs",
        tests_of("passes/test_eliminate.py", "test_attributes_and_order_of_operands_count"),
    ),
    Mutant(
        "zeros of two signs are one", "addergraph/ir/op.py",
        "str(v) for v in values if isinstance(v, float)", "v for v in values if v is None",
        tests_of("passes/test_eliminate.py", "test_zeros_of_two_signs_differ"),
    ),
    Mutant(
        "batch norm is folded without its epsilon", "passes/fold_batch_norm.py",
        "sqrt(variance + node.op.epsilon)", "sqrt(variance)",
        tests_of("passes/test_fold_batch_norm.py"),
    ),
    Mutant(
        "bytes become constants", "passes/canonicalize.py",
        "if node.outputs[0].type.dtype in (u8, i8):", "if False:",
        tests_of("passes/test_canonicalize.py", "test_keeps_what_is_not_exact"),
    ),
    Mutant(
        "a tail takes operands of any shape", "passes/fuse.py",
        "return all(v in own or v.type.shape in allowed for v in node.inputs)", "return True",
        tests_of("passes/test_fuse.py", "test_tail_reads_only_the_allowed_shapes"),
    ),
    Mutant(
        "merging pointwise groups may close a cycle", "passes/fuse.py",
        "if self._path_between(one, other) or self._path_between(other, one):", "if False:",
        tests_of("passes/test_fuse.py", "test_merging_that_would_close_a_cycle_is_refused"),
    ),
    Mutant(
        "those above a merged group are not told what it reaches", "passes/fuse.py",
        "self._tell_above(one)", "pass",
        tests_of(
            "passes/test_fuse.py", "test_earlier_merges_count_when_later_ones_are_judged"
        ),
    ),
    Mutant(
        "a sum joins a group that reads it", "passes/fuse.py",
        "if fits and fusion.group_of[one] not in self._successors(fusion.group_of[node]):",
        "if fits:",
        tests_of("passes/test_fuse.py"),
    ),
    Mutant(
        "values are computed again although others still write them", "passes/recompute.py",
        "if len(able) < len(readers) or v in fusion.kept:", "if len(able) < len(readers):",
        tests_of("passes/test_fuse.py"),
    ),
    Mutant(
        "expensive values are computed again", "passes/recompute.py",
        "if not node.op.cheap or len(found) > MOST:", "if len(found) > MOST:",
        tests_of("passes/test_fuse.py", "test_expensive_values_are_read"),
    ),
    Mutant(
        "a channel sum is computed in place of what it sums", "addergraph/ops/fused.py",
        "return self.contraction is None and not self.sums", "return self.contraction is None",
        tests_of(
            "passes/test_plan_memory.py",
            "test_channel_sums_overwrite_nothing_and_values_beside_them_may",
        ),
    ),
    Mutant(
        "a later reader's gradient replaces the earlier one's", "passes/autodiff.py",
        "gradients[v] = gradients[v] + g if v in gradients else g", "gradients[v] = g",
        tests_of("passes/test_autodiff.py"),
    ),
)  # fmt: skip

GRAPH_MUTANTS = (
    Mutant(
        "the range of an adder leaves out its bias", "addergraph/ops/contraction/adder2d.py",
        "return (plus_bias(Interval(hi=0.0), ranges),)", "return (Interval(hi=0.0),)",
        tests_of("passes/test_ranges.py", "test_a_bias_leaves_the_relu_alone"),
    ),
    Mutant(
        "ranges of sums are rounded inwards", "addergraph/ir/intervals.py",
        "lo * slack if lo < 0 else lo / slack, hi * slack if hi > 0 else hi / slack",
        "lo / slack if lo < 0 else lo * slack, hi / slack if hi > 0 else hi * slack",
        tests_of("addergraph/test_op_contract.py", "test_ranges_hold_every_result"),
    ),
    Mutant(
        "dilation is not printed", "addergraph/ir/text_attributes.py",
        "for a, text in shown if text != a.default",
        'for a, text in shown if text != a.default and a.name != "dilation"',
        tests_of("addergraph/test_text.py", "test_attributes_of_every_op_print_and_parse"),
    ),
    Mutant(
        "input_nonnegative is believed", "addergraph/ir/check.py",
        "        _check_ranges(graph, inputs)\n", "",
        tests_of("addergraph/test_check.py"),
    ),
    Mutant(
        "a mask inside a list is dropped", "addergraph/border.py",
        "if isinstance(value, list | tuple) and depth < 64:", "if False:",
        tests_of("test_border.py", "test_a_mask_is_not_dropped"),
    ),
    Mutant(
        "members of an archive unpack to any size", "addergraph/data/npz.py",
        "self.left -= member.file_size", "self.left -= 0",
        tests_of("test_readers.py", "test_an_archive_that_unpacks_to_too_much"),
    ),
    Mutant(
        "what is computed from parameters may be of any size", "codegen/run/jit.py",
        "    if made > limit:", "    if False:",
        tests_of("test_readers.py", "test_a_parameter_that_pads_to_gigabytes"),
    ),
    Mutant(
        "a log without columns is one", "addergraph/training/logs.py",
        "    if not names:\n", "    if not rows:\n",
        tests_of("addergraph/diagnostics/test_pictures.py", "test_damaged_logs_name_the_line"),
    ),
    Mutant(
        "parameters are not aligned", "addergraph/ir/state.py",
        "end += align(p.type.nbytes)", "end += p.type.nbytes",
        tests_of("addergraph/test_state.py"),
    ),
)  # fmt: skip

VERIFICATION_MUTANTS = (
    Mutant(
        "one bound for all elements", "addergraph/verification/reference.py",
        "allowed = SLACK * spread", "allowed = np.full_like(spread, SLACK * spread.max())",
        verification("test_each_element_has_a_bound_of_its_own"),
    ),
    Mutant(
        "verification draws small integers only", "addergraph/verification/samples.py",
        "kind % WHOLE_KINDS, rng", "1, rng",
        verification("test_a_cast_that_saturates_instead_of_wrapping_is_caught"),
    ),
    Mutant(
        "nodes are compared on the network's values only", "addergraph/verification/nodes.py",
        "range(DRAWN + MATCHED)", "range(0)",
        verification("test_a_dead_network_is_told_from_a_wrong_one"),
    ),
    Mutant(
        "a compiled node is held to itself", "addergraph/verification/nodes.py",
        "_between(declared, cut, [by_name[v.name] for v in node.outputs]) or itself", "itself",
        tests_of("test_score.py"),
    ),
)  # fmt: skip

MUTANTS = (
    *KERNEL_MUTANTS, *PROGRAM_MUTANTS, *PASS_MUTANTS, *GRAPH_MUTANTS, *VERIFICATION_MUTANTS,
)  # fmt: skip
