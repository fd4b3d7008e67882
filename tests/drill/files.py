"""Planted bugs in what reads and writes files."""

from __future__ import annotations

from .mutant import Mutant, tests_of

MUTANTS = (
    Mutant(
        "an edit of a kernel finds old objects", "codegen/run/cache.py",
        "os.walk(root, followlinks=True)", "os.walk(root)",
        tests_of("codegen/test_cache.py"),
    ),
    Mutant(
        "cached objects are not verified", "codegen/run/cache.py",
        "if _digest(key, rest) != digest:", "if len(digest) != 64:",
        tests_of("codegen/test_cache.py"),
    ),
    Mutant(
        "a cache that its group may write is used", "codegen/run/cache.py",
        "status.st_mode & 0o022", "status.st_mode & 0o002",
        tests_of("codegen/test_cache.py"),
    ),
    Mutant(
        "an entry of another user is read", "codegen/run/cache.py",
        "if not stat.S_ISREG(status.st_mode) or not _is_own(path, status):",
        "if not stat.S_ISREG(status.st_mode):",
        tests_of("codegen/test_cache.py"),
    ),
    Mutant(
        "a planted link is followed", "addergraph/files/storage.py",
        "if shared and status.st_uid not in", "if not shared and status.st_uid not in",
        tests_of("addergraph/test_storage.py"),
    ),
    Mutant(
        "another network of the same name replaces an export", "codegen/export/folder.py",
        'if found.get("name") != prefix or found.get("graph_sha256") != graph_sha256:',
        'if found.get("name") != prefix:',
        tests_of("codegen/test_aot_folder.py"),
    ),
    Mutant(
        "a cached object may stand under another one's key", "codegen/run/cache.py",
        "hashlib.sha256(key.encode() + rest)", "hashlib.sha256(rest)",
        tests_of("codegen/test_jit.py", "test_entries_that_change_places_are_compiled_again"),
    ),
    Mutant(
        "an export without room for all files replaces some", "codegen/export/folder.py",
        "    atomic_write_all([(where / name, data) for name, data in ordered])",
        "    for name, data in ordered:\n        atomic_write_all([(where / name, data)])",
        tests_of("codegen/test_aot_folder.py"),
    ),
    Mutant(
        "whatever metadata.json names is removed as a file of a package",
        "codegen/export/folder.py",
        "sorted(package_paths(prefix).intersection(written))", "sorted(written)",
        tests_of("codegen/test_package.py", "test_only_files_of_packages_are_removed"),
    ),
    Mutant(
        "a library without its stack has room on a board", "codegen/export/library.py",
        "size.flash, size.ram_of_a_call)", "size.flash, size.ram)",
        tests_of("codegen/test_size.py", "test_the_last_byte_counts"),
    ),
    Mutant(
        "what a failed write left stays", "addergraph/files/storage.py",
        "        for _, _, _, temporary, _ in places:\n            discard(temporary)",
        "        pass",
        tests_of("test_campaigns.py", "test_a_full_disk_at_each_step[model]"),
    ),
    Mutant(
        "the sizes of sections stay when weights are put in", "codegen/export/data.py",
        "if number == grown.section:", "if False:",
        tests_of("codegen/test_export_size.py", "test_the_data_object_is_that_of_llvm"),
    ),
    Mutant(
        "the second word of the checksum forgets earlier words",
        "codegen/export/entry_parts.py",
        "second += first * sums.size + int", "second += int",
        tests_of("codegen/test_export_size.py"),
    ),
    Mutant(
        "the self-test takes outputs below the golden ones", "codegen/export/entry_parts.py",
        'e.b.fcmp_ordered(">=", apart, e.b.fneg(most))', 'e.b.fcmp_ordered(">=", most, apart)',
        tests_of("codegen/test_rounded_selftest.py"),
    ),
    Mutant(
        "a library takes the state of another network", "codegen/export/training_entry.py",
        "(12, CHECKED, OTHER_NETWORK)", "(12, 16, OTHER_NETWORK)",
        tests_of("addergraph/test_device.py", "test_other_bytes_are_refused_and_the_state_stays"),
    ),
    Mutant(
        "a label of no class is learned", "codegen/export/training_entry.py",
        'e.b.icmp_unsigned("<", label, most)', 'e.b.icmp_unsigned("<=", label, most)',
        tests_of("addergraph/test_device.py", "test_a_step_that_cannot_be_changes_nothing"),
    ),
    Mutant(
        "a state that differs from its checksum is loaded", "codegen/export/training_entry.py",
        'require(e, e.b.icmp_signed("==", total, stored), DAMAGED_STATE)', "pass",
        tests_of("addergraph/test_device.py", "test_other_bytes_are_refused_and_the_state_stays"),
    ),
    Mutant(
        "parameters become inputs in another order", "passes/as_inputs.py",
        "for p in graph.parameters:", "for p in reversed(graph.parameters):",
        tests_of("addergraph/test_device.py", "test_steps_have_the_bits_of_python"),
    ),
    Mutant(
        "the self-test runs what the CPU has not", "codegen/export/entry.py",
        'e.b.icmp_signed("!=", e.b.call(asks, []), code(0))',
        'e.b.icmp_signed("!=", e.b.call(asks, []), code(2))',
        tests_of("codegen/test_supported.py", "test_older_cpus_answer"),
    ),
    Mutant(
        "the system is not asked whether it keeps wide registers", "codegen/export/cpu.py",
        "_require(e, cpuid, OSXSAVE[0], 1 << OSXSAVE[1])", "pass",
        tests_of("codegen/test_supported.py", "test_older_cpus_answer"),
    ),
    Mutant(
        "ARM objects pass floats one way", "codegen/export/attributes.py",
        "_VFP_ARGS, _BOTH = 28, 3", "_VFP_ARGS, _BOTH = 28, 0",
        tests_of("codegen/test_boards.py", "test_objects_say_that_no_floats_are_passed"),
    ),
    Mutant(
        "the page shows the certificate of its other module", "addergraph/demo/site.py",
        'if name == "net":', 'if name == "layers":',
        tests_of("addergraph/test_demo_page.py", "test_the_certificate_is_that_of_the_module"),
    ),
    Mutant(
        "the demo replaces a page of somebody else", "addergraph/demo/site.py",
        "index.exists() and MARK not in", "not index.exists() and MARK not in",
        tests_of("addergraph/test_demo_page.py", "test_a_page_of_somebody_else_stays"),
    ),
)  # fmt: skip
