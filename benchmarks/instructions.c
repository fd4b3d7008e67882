/* A plugin of QEMU that prints how many instructions a program executed: see instructions.py.
 *
 * The functions are those of QEMU's plugin interface, version 1 (qemu.org, "QEMU TCG Plugins"). They
 * are declared here, as distributions have the programs without the header.
 */
#include <inttypes.h>
#include <stdio.h>

struct qemu_plugin_tb;
typedef uint64_t plugin;

extern void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin id, void (*call)(plugin id, struct qemu_plugin_tb *block));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *block, int operation, void *number, uint64_t by);
extern void qemu_plugin_register_atexit_cb(
    plugin id, void (*call)(plugin id, void *data), void *data);

enum { ADD = 0 };
int qemu_plugin_version = 1;
static uint64_t executed;

static void translated(plugin id, struct qemu_plugin_tb *block)
{
    size_t count = qemu_plugin_tb_n_insns(block);
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &executed, count);
}

static void ended(plugin id, void *data)
{
    (void)id, (void)data;
    fprintf(stderr, "%" PRIu64 "\n", executed);
}

int qemu_plugin_install(plugin id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
