#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/overwrite.h"
#include "base/staging.h"
#include "cli/picture.h"

extern char **environ;

#define ABSENT 3 /* the script's exit code: no matplotlib */

/* Draws the elements of picture.c, a pixel a point at 72 dpi, at twice that resolution. */
static const char SCRIPT[] =
    "import sys\n"
    "sys.path = [p for p in sys.path if p not in ('', '.')]\n"
    "import importlib.util, io\n"
    "if importlib.util.find_spec('matplotlib') is None: sys.exit(3)\n"
    "if sys.argv[1:] == ['probe']: sys.exit(0)\n"
    "import logging, warnings\n"
    "warnings.simplefilter('ignore'); logging.disable(logging.CRITICAL)\n"
    "import xml.etree.ElementTree as tree\n"
    "from matplotlib.backends.backend_agg import FigureCanvasAgg\n"
    "from matplotlib.figure import Figure\n"
    "from matplotlib.lines import Line2D\n"
    "from matplotlib.patches import Circle, Rectangle\n"
    "root = tree.fromstring(sys.stdin.buffer.read())\n"
    "width, height = map(float, root.get('viewBox').split()[2:])\n"
    "figure = Figure(figsize=(width / 72, height / 72), dpi=144)\n"
    "canvas = FigureCanvasAgg(figure)\n"
    "axes = figure.add_axes([0, 0, 1, 1]); axes.set_xlim(0, width); axes.set_ylim(height, 0); axes.axis('off')\n"
    "for order, e in enumerate(root):\n"
    "    kind = e.tag.split('}')[-1] if isinstance(e.tag, str) else ''\n"
    "    n = lambda key: float(e.get(key))\n"
    "    if kind == 'rect':\n"
    "        axes.add_patch(Rectangle((n('x'), n('y')), n('width'), n('height'), color=e.get('fill'), lw=0, zorder=order))\n"
    "    elif kind == 'circle':\n"
    "        axes.add_patch(Circle((n('cx'), n('cy')), n('r'), fc=e.get('fill'), ec=e.get('stroke'), lw=n('stroke-width'), zorder=order))\n"
    "    elif kind == 'line':\n"
    "        axes.add_line(Line2D([n('x1'), n('x2')], [n('y1'), n('y2')], color=e.get('stroke'), lw=n('stroke-width'), zorder=order))\n"
    "    elif kind == 'text':\n"
    "        axes.text(n('x'), n('y'), e.text or '', fontsize=n('font-size'), va='baseline', color=e.get('fill'), zorder=order,\n"
    "                  ha={'start': 'left', 'middle': 'center', 'end': 'right'}[e.get('text-anchor')],\n"
    "                  weight=e.get('font-weight') or 'normal', parse_math=False)\n"
    "out = io.BytesIO()\n"
    "canvas.print_png(out, metadata={'Software': '" DZ_PLOT_MARK "'})\n"
    "sys.stdout.buffer.write(out.getvalue())\n";

static const char *python(void) {
    const char *chosen = getenv("DZ_PYTHON");
    return chosen && chosen[0] ? chosen : "python3";
}

/* Feeds `in` to the child and takes its output, both as far as they go. */
static dz_rc exchange(int to, int from, const dz_buf *in, dz_buf *out, dz_error *err) {
    size_t sent = 0;
    fcntl(to, F_SETFL, O_NONBLOCK);
    if (in->len == 0) close(to);
    for (;;) {
        struct pollfd fds[2] = {{.fd = from, .events = POLLIN}, {.fd = sent < in->len ? to : -1, .events = POLLOUT}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
        if (fds[1].revents) {
            ssize_t n = write(to, in->data + sent, in->len - sent);
            sent = n > 0 ? sent + (size_t)n : errno == EAGAIN || errno == EINTR ? sent : in->len; /* it has ended: its code says why */
            if (sent >= in->len) close(to);
        }
        if (!fds[0].revents) continue;
        if (dz_buf_reserve(out, 1 << 16, err) != DZ_OK) break;
        ssize_t n = read(from, out->data + out->len, 1 << 16);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n <= 0) break;
        out->len += (size_t)n;
    }
    if (sent < in->len) close(to);
    close(from);
    return err->rc;
}

/* Runs the script. Its exit code, or -1 when it cannot be started. */
static int run_python(const char *argument, const dz_buf *in, dz_buf *out, dz_error *err) {
    int to[2], from[2], status = 0;
    pid_t child;
    posix_spawn_file_actions_t actions;
    char *const argv[] = {(char *)(uintptr_t)python(), (char *)(uintptr_t) "-c", (char *)(uintptr_t)SCRIPT, (char *)(uintptr_t)argument,
                          NULL};
    if (pipe2(to, O_CLOEXEC) != 0) return -1;
    if (pipe2(from, O_CLOEXEC) != 0) {
        close(to[0]);
        close(to[1]);
        return -1;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], 0);
    posix_spawn_file_actions_adddup2(&actions, from[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawnp(&child, python(), &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
    if (failed) {
        close(to[1]);
        close(from[0]);
        return -1;
    }
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before);
    exchange(to[1], from[0], in, out, err);
    sigaction(SIGPIPE, &before, NULL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int is_png(const char *path) { return dz_ends_with(path, ".png"); }

static dz_rc no_png(const char *path, int code, dz_error *err) {
    return dz_fail(err, DZ_EUSAGE,
                   "--plot %s: PNG is drawn by Python's matplotlib, and '%s' %s: give a name that ends in .svg, which needs nothing, or "
                   "install matplotlib (DZ_PYTHON names another Python)",
                   path, python(),
                   code == ABSENT ? "does not have it"
                   : code < 0     ? "cannot be started"
                                  : "failed to draw with it");
}

dz_rc dz_picture_check(const char *path, dz_error *err) {
    dz_buf out = {0};
    const dz_buf none = {0};
    if (dz_overwrite_check(path, DZ_TARGET_PLOT, 0, err) != DZ_OK) return err->rc;
    if (!dz_ends_with(path, ".svg") && !is_png(path))
        return dz_fail(err, DZ_EUSAGE, "--plot %s: plots are SVG or PNG: give a name that ends in .svg or .png", path);
    if (!is_png(path)) return DZ_OK;
    int code = run_python("probe", &none, &out, err);
    dz_buf_free(&out);
    return code == 0 || err->rc != DZ_OK ? err->rc : no_png(path, code, err);
}

dz_rc dz_picture_write(dz_picture *p, const char *path, dz_error *err) {
    dz_buf png = {0};
    if (err->rc != DZ_OK) goto out;
    if (!is_png(path)) {
        dz_replace_file(path, p->svg.data, p->svg.len, err);
        goto out;
    }
    int code = run_python("draw", &p->svg, &png, err);
    if (err->rc == DZ_OK && (code != 0 || png.len == 0)) no_png(path, code ? code : 1, err);
    if (err->rc == DZ_OK) dz_replace_file(path, png.data, png.len, err);
out:
    dz_buf_free(&png);
    dz_buf_free(&p->svg);
    return err->rc;
}
