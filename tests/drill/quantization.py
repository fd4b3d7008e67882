"""Planted bugs in quantization: the integers, the kernels that use them, and strict mode."""

from __future__ import annotations

from .mutant import Mutant, tests_of

POINTWISE, FIXED = "codegen/kernels/pointwise.py", "passes/quantize/fixed_point.py"
INTEGERS, FORMS = "passes/quantize/integers.py", "passes/quantize/forms.py"
INDICES, SHIFT_ADD = "codegen/emit/indices.py", "codegen/emit/shift_add.py"
LOOKUP, BUILDER = "codegen/kernels/lookup.py", "codegen/emit/builder.py"
CALIBRATE, CALIBRATION = "passes/quantize/calibrate.py", "passes/test_calibration.py"
LOOKED_UP = tests_of("codegen/kernels/test_lookup.py", "test_every_byte_of_every_channel")
STEPS = tests_of("codegen/kernels/test_requantize.py", "test_every_sum", "test_every_term")
NUMBERS = tests_of("passes/test_fixed_point.py")
MEANING = tests_of(
    "passes/test_quantize.py",
    "test_integers_say_what_the_network_does", "test_filters_clamp_without_loss",
    "test_statistics_are_moved",
)  # fmt: skip
PRODUCTS = tests_of("passes/test_quantize_products.py", "test_integers_say_what_the_network_does")
STRICT = tests_of("codegen/test_strict.py")
ROUNDED = "passes/quantize/rounded.py"
BETWEEN = "passes/test_quantize_layers.py"
AWARE_PRODUCTS = "passes/test_quantization_aware_products.py"
ROUNDING = tests_of("addergraph/ops/test_fake_quantize.py")
TRAINING = tests_of(
    "passes/test_quantization_aware.py",
    "test_integers_are_what_training_saw", "test_layers_have_the_distances_of_bytes",
    "test_gradients_are_the_papers_at_rounded_numbers", "test_both_forms_round_alike",
)  # fmt: skip

MUTANTS = (
    Mutant(
        "a power of two that is taken off is added", POINTWISE,
        "total = b.add(total, b.xor(c.e.shift_left(t, places), sign))",
        "total = b.add(total, c.e.shift_left(t, places))", STEPS,
    ),
    Mutant(
        "a term of 0 adds a power of two", POINTWISE,
        "b.select(no_term, constant(type, 32), places)", "places", STEPS,
    ),
    Mutant(
        "a power of two that is taken off is one too few", POINTWISE,
        "        total = b.sub(total, sign)\n", "", STEPS,
    ),
    Mutant(
        "where lanes do not shift by 32 they shift by 0", BUILDER,
        "return self.b.select(beyond, constant(type, 0), self._shifted(value, places))",
        "return self._shifted(value, places)", STEPS,
    ),
    Mutant(
        "requantization rounds toward zero", POINTWISE,
        "value = b.ashr(total, b.and_(shift, constant(shift.type, 31)))",
        "value = b.sdiv(total, b.shl(constant(total.type, 1), b.and_(shift, "
        "constant(shift.type, 30))))", STEPS,
    ),
    Mutant(
        "a single byte at the end of a row is stored as four", "codegen/emit/builder.py",
        "if active == 1:", "if active == 0:",
        tests_of(
            "codegen/kernels/test_requantize.py", "test_the_last_byte_of_a_row_is_stored_as_one"
        ),
    ),
    Mutant(
        "the largest byte is the largest signed one", "codegen/kernels/reduction/pool.py",
        'e.call("umax"', 'e.call("smax"',
        tests_of("codegen/kernels/test_requantize.py", "test_largest_byte"),
    ),
    Mutant(
        "channels behind the fourth read the tables of the first ones", LOOKUP,
        "e.at(table, e.mul(first, apart))", "table", LOOKED_UP,
    ),
    Mutant(
        "bytes above 127 are looked up before the table", LOOKUP,
        "e.b.zext(e.load(e.at(read, c), u8), e.word)",
        "e.b.sext(e.load(e.at(read, c), u8), e.word)", LOOKED_UP,
    ),
    Mutant(
        "pixels that are looked up have the scale of the camera",
        "addergraph/ops/movement/lookup.py", "(known[1], self._stated())", "(known[0], known[1])",
        tests_of("addergraph/ops/test_lookup.py", "test_ranges_and_what_the_result_stands_for"),
    ),
    Mutant(
        "requantization does not round to nearest", FIXED,
        "round(rest * 2.0**shift) + ((1 << shift) >> 1)", "round(rest * 2.0**shift)", NUMBERS,
    ),
    Mutant(
        "steps of a requantization may leave i32", FIXED,
        "LIMIT = 2**31 - 1", "LIMIT = 2**40", NUMBERS,
    ),
    Mutant(
        "factors ignore their sign", FIXED,
        "sign = -1 if factor < 0 else 1", "sign = 1", NUMBERS,
    ),
    Mutant(
        "all of many samples choose the number of terms", "passes/quantize/quantize.py",
        "samples[:: math.ceil(len(samples) / SEARCHED)]", "samples[:]",
        tests_of("passes/test_quantize.py", "test_some_of_many_samples_choose_the_terms"),
    ),
    Mutant(
        "more terms are tried than are needed", "passes/quantize/quantize.py",
        "if chosen.error <= WORSE * exact.error:", "if terms == MOST_TERMS:",
        tests_of("passes/test_quantize.py", "test_terms_are_the_fewest_that_serve"),
    ),
    Mutant(
        "what clamping a filter takes off is forgotten", INTEGERS,
        "constant = -beyond", "constant = 0.0 * beyond", MEANING,
    ),
    Mutant(
        "padding of bytes is always of byte 0", INTEGERS,
        "if not any(padding) or not zero:", "if not any(padding) or zero:", MEANING,
    ),
    Mutant(
        "a border of images is of byte 0", INTEGERS,
        "replace(node.op, value=float(x.quantization.zero_point))", "node.op",
        tests_of(BETWEEN, "test_integers_say_what_the_network_does"),
    ),
    Mutant(
        "values that are joined keep the grids of their own", INTEGERS,
        "isinstance(form, Bytes) and (form.quantization, form.top) == grid",
        "isinstance(form, Bytes)", tests_of(BETWEEN, "test_integers_say_what_the_network_does"),
    ),
    Mutant(
        "a slope above 1 takes the larger of both", "passes/quantize/rules.py",
        "Maximum() if slope <= 1 else Minimum()", "Maximum()",
        tests_of(BETWEEN, "test_integers_say_what_the_network_does"),
    ),
    Mutant(
        "bytes stay that go beyond the limit", "passes/quantize/rules.py",
        " and f32(ends[1]) <= f32(hi)", "",
        tests_of(BETWEEN, "test_each_byte_is_the_nearest_to_its_number"),
    ),
    Mutant(
        "one table for all channels is read as many", LOOKUP,
        "BYTES if tables.shape[0] > 1 else 0", "BYTES",
        tests_of("codegen/kernels/test_lookup.py", "test_every_byte_of_every_channel"),
    ),
    Mutant(
        "a mean forgets its area", FORMS,
        "scale / area * ones, -scale * zero * ones", "scale * ones, -scale * zero * ones",
        MEANING,
    ),
    Mutant(
        "what the zero point leaves of products is forgotten", INTEGERS,
        "constant = -factor * x.quantization.zero_point * integers.sum(axes)",
        "constant = 0.0 * factor", PRODUCTS,
    ),
    Mutant(
        "filters of products have one scale for all channels", "addergraph/ir/quantization.py",
        "scale = np.where(largest == 0, 1.0, largest) / end",
        "scale = np.where(largest == 0, 1.0, largest.max()) / end",
        tests_of("passes/test_quantize_products.py", "test_filters_are_symmetric_in_each_channel"),
    ),
    Mutant(
        "sums of windows read signed bytes", "codegen/kernels/reduction/pool.py",
        "e.b.zext(e.load(here, u8", "e.b.sext(e.load(here, u8",
        tests_of("codegen/kernels/test_pool.py"),
    ),
    Mutant(
        "batch norms' means do not move", INTEGERS,
        "mean = mean + (here.mean - before.mean)", "mean = mean + 0 * here.mean",
        tests_of("passes/test_quantize.py", "test_means_and_deviations_stay"),
    ),
    Mutant(
        "elements beyond the limit keep their places among all", CALIBRATE,
        "(places[0] - less, places[1] - less)", "places",
        tests_of(CALIBRATION, "test_quantiles_are_those_of_numpy"),
    ),
    Mutant(
        "a limit that lets too few elements pass is believed", CALIBRATE,
        "if less <= places[0] and places[1] < less + passed:", "if passed:",
        tests_of(CALIBRATION, "test_quantiles_of_an_order_that_misleads_the_sample"),
    ),
    Mutant(
        "the outputs of one chunk are overwritten by the next", CALIBRATE,
        "kept.append(arrays[v].copy())", "kept.append(arrays[v])",
        tests_of(CALIBRATION, "test_the_float_network_agrees_within_rounding"),
    ),
    Mutant(
        "moments leave out the square of the mean", "codegen/run/moments.py",
        "rest = e.b.fsub(squares, e.b.fdiv(e.b.fmul(d, d), rows))", "rest = squares",
        tests_of(CALIBRATION, "test_moments_have_the_bits_of_numpy"),
    ),
    Mutant(
        "a term of one place counts two in calibration", FIXED,
        "np.maximum(np.abs(terms) - 1, 0)", "np.abs(terms)",
        tests_of(CALIBRATION, "test_one_factor_does_what_the_shifts_do"),
    ),
    Mutant(
        "sums are kept for another chunk", "passes/quantize/integer_graph.py",
        "return found.pop(k)", "return found.popitem()[1]",
        tests_of(CALIBRATION, "test_sums_that_a_batch_norm_reads_are_kept"),
    ),
    Mutant(
        "the next smaller factor stands for one near the next larger", FIXED,
        "near = ordered[max(0, at - 1) : at + 1]", "near = ordered[max(0, at - 1) : max(1, at)]",
        tests_of("passes/test_fixed_point.py"),
    ),
    Mutant(
        "results go into memory of another batch", "codegen/run/jit.py",
        "(a.shape, a.dtype) == result", "a.dtype == result[1]",
        tests_of(CALIBRATION, "test_the_float_network_agrees_within_rounding"),
    ),
    Mutant(
        "operands of different scales meet in an adder layer", "addergraph/ir/quantization.py",
        "if other != stated[0]:", "if other.zero_point != stated[0].zero_point:",
        tests_of("addergraph/test_quantization.py", "test_what_does_not_agree_is_refused"),
    ),
    Mutant(
        "strict code multiplies indices", INDICES,
        "if not self.target.multiplier:\n            return shift_add.multiplied(",
        "if self.target.multiplier is None:\n            return shift_add.multiplied(", STRICT,
    ),
    Mutant(
        "a quotient has a bit too few", INDICES,
        "(below - 1).bit_length()", "(below - 1).bit_length() - 1", STRICT,
    ),
    Mutant(
        "digits of a constant are all positive", SHIFT_ADD,
        "sign = 2 - (number & 3)", "sign = 1", STRICT,
    ),
    Mutant(
        "LLVM sees the sums of shifts", "codegen/emit/hidden.py",
        'return b.call(ir.InlineAsm(type, "", f"={kind},0"), [value])', "return value", STRICT,
    ),
    Mutant(
        "strict mode reads no instruction of a program", "codegen/inspect/strict.py",
        "        if wrong:", "        if wrong and nodes is None:", STRICT,
    ),
    Mutant(
        "the gradient passes where an activation saturates",
        "addergraph/ops/pointwise/fake_quantize.py",
        "return (select(x < low, 0.0, select(x > high, 0.0, g)),)", "return (g,)", ROUNDING,
    ),
    Mutant(
        "training rounds to half steps", POINTWISE, "ROUND = 1.5 * 2.0**52",
        "ROUND = 1.5 * 2.0**51",
        tests_of("codegen/kernels/test_pointwise.py", "test_rounding_to_a_grid"),
    ),
    Mutant(
        "filters beyond the range saturate in training", ROUNDED,
        "self._layer(node, replace(x, saturate=False))", "self._layer(node, x)", TRAINING,
    ),
    Mutant(
        "a relu of sums is not rounded in training", ROUNDED,
        "return None if form is None else form.known.ends(form.top)",
        "return (0.0, 1.0) if form is None else form.known.ends(form.top)", TRAINING,
    ),
    Mutant(
        "scales of a trained network are calibrated anew", INTEGERS,
        "if isinstance(op, FakeQuantize):", "if isinstance(op, str):", TRAINING,
    ),
    Mutant(
        "filters of products forget for how many bits they were trained", INTEGERS,
        "return self.bits if op is None else op.bits", "return self.bits",
        tests_of(AWARE_PRODUCTS, "test_filters_are_those_of_the_integer_network"),
    ),
    Mutant(
        "filters of products are on the grid of their input in training", ROUNDED,
        "self._layer(node, self.filter_grid(node.inputs[1]))",
        "self._layer(node, replace(x, saturate=False))",
        tests_of(AWARE_PRODUCTS, "test_layers_have_the_products_of_bytes"),
    ),
    Mutant(
        "sums that a layer reads are not rounded in training", ROUNDED,
        "return self.forms[value] or self._round(value)",
        "return self.forms[value] or self.grid(value)",
        tests_of(AWARE_PRODUCTS, "test_both_forms_round_alike"),
    ),
    Mutant(
        "the scale of a filter knows positive taps alone",
        "codegen/kernels/reduction/filter_grid.py",
        "MAGNITUDE = Fold(f32, 0.0, lambda e, registers: e.call(\"fabs\", registers[0]), larger)",
        "MAGNITUDE = Fold(f32, 0.0, lambda e, registers: registers[0], larger)",
        tests_of("codegen/kernels/test_filter_grid.py"),
    ),
    Mutant(
        "a mean over channels forgets from where it counts", "passes/quantize/integer_graph.py",
        "(scale * middle + part.constant.mean())", "part.constant.mean()",
        tests_of(BETWEEN, "test_integers_say_what_the_network_does"),
    ),
    Mutant(
        "a center is of what others have made of the sums", INTEGERS,
        "mean, one = self._centers[node.inputs[1]]",
        "one, mean = (self.sums(v, node).parts[0] for v in node.inputs)",
        tests_of(BETWEEN, "test_a_center_is_of_sums_whatever_others_read"),
    ),
    Mutant(
        "means over channels are as coarse as the sums", "passes/quantize/integer_graph.py",
        "places = min(GUARD_BITS, max(1, room).bit_length() - 1)", "places = 0",
        tests_of(BETWEEN, "test_integers_are_what_training_saw"),
    ),
    Mutant(
        "digits of a mean's factor are never taken off", FIXED,
        "digit = 2 - (number & 3) if number & 1 else 0", "digit = number & 1", NUMBERS,
    ),
    Mutant(
        "sums of many channels may leave i32", INTEGERS,
        "if most - least > LIMIT // 2:", "if least > 0:",
        tests_of(BETWEEN, "test_channels_beyond_i32_are_refused"),
    ),
    Mutant(
        "a network died where its last layer is", "passes/quantize/quantize.py",
        "(n for n in graph.nodes if n.outputs[0].type.is_open)",
        "(n for n in graph.nodes[::-1] if n.outputs[0].type.is_open)",
        tests_of("passes/test_quantize.py", "test_a_dead_network_is_told_where_it_died"),
    ),
    Mutant(
        "a number of the network is a layer that died", "passes/quantize/quantize.py",
        "graph.nodes if n.outputs[0].type.is_open)", "graph.nodes)",
        tests_of("passes/test_quantize.py", "test_a_number_of_the_network_is_no_dead_layer"),
    ),
)  # fmt: skip
